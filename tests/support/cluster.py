"""The Kubernetes cluster of the tests, where there is one, and a namespace of it for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.support.requirements import require

from airflow_cd.targets.kubernetes.cluster import Cluster


@pytest.fixture(scope="session")
def cluster_client() -> Any:
    """A client of the cluster that ``KUBECONFIG`` names, as its administrator."""
    require(os.environ.get("KUBECONFIG"), "needs a Kubernetes cluster: set KUBECONFIG")
    from airflow_cd.hooks.kubernetes import kubernetes_client

    return kubernetes_client(None, None)


@pytest.fixture
def namespace(cluster_client: Any) -> Iterator[str]:
    """A namespace for this test alone; the cluster removes it, with all that is in it, after the test."""
    from kubernetes.client import ApiException, CoreV1Api

    core = CoreV1Api(cluster_client)
    name = f"cd-test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    with suppress(ApiException):  # the test removed it
        core.delete_namespace(name, grace_period_seconds=0)


@pytest.fixture
def cluster(cluster_client: Any, namespace: str) -> Cluster:
    """The test's namespace, as its administrator."""
    return Cluster(lambda: cluster_client, namespace, "web in production")


class Counted:
    """A client that remembers what it was asked. :param client: asks the cluster"""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.requests: list[tuple[str, str]] = []

    def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
        """Pass a request on."""
        self.requests.append((method, path))
        return self._client.call_api(path, method, *args, **kwargs)

    def during(self, action: Callable[[], object]) -> list[tuple[str, str]]:
        """Return what was asked while something was done."""
        self.requests.clear()
        action()
        return list(self.requests)
