"""As :class:`tests.integration.services.TestService`, for services that run on a Kubernetes cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from harness.airflow import RunningAirflow
from tests.integration.services import TestService, made
from tests.support.engine import remove_later
from tests.support.images import DOCKERFILE, Registry

from airflow_cd.hooks.clients import CLIENTS
from airflow_cd.packaging.archive import unpack
from airflow_cd.targets.base import Access

# What ends up in a definition's last environment, beside what the base class puts there.
_OF_PRODUCTION = ("strategy", "drift", "window_approvers")


class KubernetesService(TestService):
    """Its releases are images, and its environments are in a namespace each."""

    registry: Registry
    namespaces: dict[str, str]
    environments = ("production",)

    def _define(self, **changes: Any) -> dict[str, Any]:
        own = {key: changes.pop(key) for key in _OF_PRODUCTION if key in changes}
        app = {
            "ready": "/",
            "env": {"SICK": "/nowhere/"},
            "stop_after": "1s",
            "grace": "1s",
            **changes.pop("app", {}),
        }
        target = changes.pop("target", {"app": app})
        definition = super()._define(**changes)
        self.images = f"{self.registry.address}/{self.name}"
        definition["package"] = {"image": {"repository": self.images}}
        for environment in definition["environments"]:
            namespace = self.namespaces[environment["name"]]
            environment["target"] = {"kubernetes": {"namespace": namespace, **target}}
            # Nodes hear of the first pods of a Service a moment after they are ready.
            environment["health"][0]["failures"] = 20
        definition["environments"][-1].update(own)
        return definition

    def commit(self, text: str, **options: Any) -> str:
        dockerfile = DOCKERFILE.replace("app.py /app.py", "src/app.py /app.py")
        self.repository.commit({"Dockerfile": dockerfile}, "how it is packaged")
        return super().commit(text, **options)

    def served(self, environment: str = "production", path: str = "/") -> str:
        """Return what the service answers there."""
        return httpx.get(f"{self._target(environment).url()}{path}", trust_env=False, timeout=5).text

    def _access(self) -> Access:
        return Access(
            self.airflow.home / "cd",
            unpack,
            clients=CLIENTS,
        )


@contextmanager
def kubernetes_services(
    airflow: RunningAirflow,
    registry: Registry,
    namespaces: dict[str, str],
    folder: Path,
    test: str,
) -> Iterator[Callable[..., KubernetesService]]:
    """Make services in these namespaces (environment -> namespace); they are gone at the end."""
    assert os.environ.get("KUBECONFIG"), "required by the fixture of the namespace"
    own = {"registry": registry, "namespaces": namespaces, "environments": tuple(namespaces)}
    kind = type("OwnService", (KubernetesService,), own)
    all_made: list[KubernetesService] = []

    def make(*args: Any, **changes: Any) -> KubernetesService:
        all_made.append(plain(*args, **changes))
        return all_made[-1]

    try:
        with made(kind, airflow, folder, test) as plain:
            yield make
    finally:
        for one in all_made:
            remove_later(one.images)
