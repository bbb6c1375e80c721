"""Places for the conformance suite: a target, a store, and releases to deploy, of each kind of target."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
from harness.ports import any_free
from harness.waiting import wait_until
from tests.support.engine import need_front_image, remove_all, remove_later
from tests.support.images import Registry, built
from tests.support.releases import release_of

from airflow_cd.hooks.clients import CLIENTS
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.model.release import Release
from airflow_cd.packaging.archive import pack, unpack
from airflow_cd.targets.base import Access
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.testing.programs import APP, BROKEN, ENDS_CONNECTIONS
from airflow_cd.testing.target_place import TargetPlace


class Place(TargetPlace):
    """A target of this package, whose releases are Python programs, and a port for it."""

    not_ready = "(?s)ended.*no database"

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.port = any_free()[0]
        super().__init__(folder, **settings)

    def access(self) -> Access:
        return Access(self.data, unpack, lambda conn_id: f"password of {conn_id}", CLIENTS)

    def release(self, text: str, code: str = APP) -> Release:
        """Return a new release that answers with this text."""
        self.made += 1
        release = self.packaged(text, code.replace("{text!r}", repr(text)))
        revision = release.revision.model_copy(update={"sha": f"{self.made:040x}"})
        return release.model_copy(update={"revision": revision})

    def broken_release(self, text: str) -> Release:
        return self.release(text, BROKEN)

    def graceful_release(self, text: str) -> Release:
        return self.release(text, ENDS_CONNECTIONS)

    def packaged(self, text: str, code: str) -> Release:
        raise NotImplementedError


class KubernetesPlace(Place):
    """Releases are images; they run in a namespace of the test's own."""

    kind = "kubernetes"

    def __init__(
        self, folder: Path, engine: Any, registry: Registry, namespace: str, **settings: Any
    ) -> None:
        self.engine, self.registry, self.namespace = engine, registry, namespace
        self.service = f"hello-{uuid.uuid4().hex[:8]}"
        self.repository = f"{self.registry.address}/{self.service}"
        super().__init__(folder, **settings)

    def access(self) -> Access:
        return kubernetes_access(self.data)

    def settings(self) -> dict[str, Any]:
        app = {"ready": "/", "stop_after": "1s", "grace": "1s"}
        return {"namespace": self.namespace, "app": app, "keep": 2, "progress_deadline": "30s"}

    def packaged(self, text: str, code: str) -> Release:
        digest = built(self.engine, self.repository, text, code)
        release = release_of(digest, version=text, subject=text)
        return release.model_copy(update={"image": self.repository})

    def served(self, path: str = "/") -> str:
        """Return what it answers when nodes have heard of what changed: the same for a second."""
        answers: list[str] = []

        def is_settled() -> bool:
            try:
                answers.append(httpx.get(f"{self.target.url()}{path}", trust_env=False).text)
            except httpx.HTTPError:
                answers.clear()
            return len(answers) >= 6 and len(set(answers[-6:])) == 1

        wait_until(is_settled, "it answers the same for a while", timeout=120, every=0.2)
        return answers[-1]

    def instances(self) -> list[str]:
        from kubernetes import client

        apps = client.AppsV1Api(kubernetes_client(None, None))
        found = apps.list_namespaced_deployment(self.namespace).items
        return [one.metadata.name for one in found if one.spec.replicas]

    def kept(self) -> set[str]:
        from kubernetes import client

        core = client.CoreV1Api(kubernetes_client(None, None))
        found = core.list_namespaced_config_map(self.namespace, label_selector="airflow-cd/holds=objects")
        return {one.metadata.annotations["airflow-cd/release"] for one in found.items}

    def lose_sources(self) -> None:
        self.registry.forget(self.service)

    def spoil(self, release: Release) -> None:
        self.registry.spoil(self.service, release.digest)

    def close(self) -> None:
        self.target.remove()  # type: ignore[attr-defined]
        remove_later(self.repository)


def kubernetes_access(data: Path) -> Access:
    """Return what a Kubernetes target is given by the tests: the cluster of ``KUBECONFIG``."""
    return Access(
        data,
        unpack,
        lambda conn_id: f"password of {conn_id}",
        CLIENTS,
    )


class LocalPlace(Place):
    kind = "local"

    def settings(self) -> dict[str, Any]:
        return {"command": ["python", "app.py"], "port": self.port, "drain": "2s", "keep": 2}

    def packaged(self, text: str, code: str) -> Release:
        source = self.folder / f"source-{text}"
        source.mkdir()
        (source / "app.py").write_text(code)
        pack(source, self.folder / "archive", include=["**"])
        return release_of(self.store.put_file(self.folder / "archive"), version=text, subject=text)

    def instances(self) -> list[str]:
        return [path.stem for path in self.data.rglob("supervisor.d/*.conf") if "front" not in path.stem]

    def kept(self) -> set[str]:
        folders = (self.data / "local" / self.service / "production/releases").iterdir()
        return {f"sha256:{folder.name}" for folder in folders}

    def lose_sources(self) -> None:
        import shutil

        shutil.rmtree(self.folder / "store")

    def spoil(self, release: Release) -> None:
        for blob in (self.folder / "store/blobs").rglob("*"):
            if blob.is_file() and release.digest.endswith(blob.name):
                blob.write_bytes(b"evil")

    def close(self) -> None:
        shutdown(root_of(self.data))


class DockerPlace(Place):
    """Releases are images; the service has a name that no other test has."""

    kind = "docker"

    def __init__(self, folder: Path, engine: Any, registry: Registry, **settings: Any) -> None:
        self.engine, self.registry = engine, registry
        self.service = f"hello-{uuid.uuid4().hex[:8]}"
        need_front_image(engine)
        self.repository = f"{self.registry.address}/{self.service}"
        super().__init__(folder, **settings)

    def settings(self) -> dict[str, Any]:
        return {"port": self.port, "drain": "2s", "keep": 2, "init": True}

    def packaged(self, text: str, code: str) -> Release:
        digest = built(self.engine, self.repository, text, code)
        release = release_of(digest, version=text, subject=text)
        return release.model_copy(update={"image": self.repository})

    def instances(self) -> list[str]:
        label = {"label": [f"airflow-cd.target={self.service}/production", "airflow-cd.generation"]}
        found = self.engine.containers.list(all=True, ignore_removed=True, filters=label)
        return sorted(one.name for one in found)

    def kept(self) -> set[str]:
        held = set()
        for image in self.engine.images.list(self.repository):
            held |= {name.partition("@")[2] for name in image.attrs["RepoDigests"]}
        return held

    def lose_sources(self) -> None:
        self.registry.forget(self.service)

    def spoil(self, release: Release) -> None:
        self.registry.spoil(self.service, release.digest)

    def close(self) -> None:
        remove_all(self.engine, self.service, self.repository)
