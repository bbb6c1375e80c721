"""The Kubernetes cluster of the tests, where there is one, and a namespace of it for each test."""

from __future__ import annotations

import os
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.requirements import NEEDS_CLUSTER, require

from airflow_cd.kubernetes.client import NamespaceClient

# How long tests wait for a cluster that is set up meanwhile.
WAIT_SECONDS = float(os.environ.get("CD_WAIT_FOR_CLUSTER") or 0)


@pytest.fixture(scope="session")
def cluster_is_up() -> float:
    """
    The cluster that ``KUBECONFIG`` names can be used, or is not going to be.

    Return until when what comes after its node is waited for, as ``time.monotonic`` counts.
    """
    require(os.environ.get("KUBECONFIG"), NEEDS_CLUSTER)
    deadline = time.monotonic() + WAIT_SECONDS
    if WAIT_SECONDS:
        wait_until(_has_a_ready_node, "a node of the cluster is ready", timeout=WAIT_SECONDS, every=2)
    return deadline


def _has_a_ready_node() -> bool:
    from kubernetes.client import ApiException, CoreV1Api
    from urllib3.exceptions import HTTPError

    from airflow_cd.exceptions import CdError
    from airflow_cd.hooks.kubernetes import kubernetes_client

    try:
        nodes = CoreV1Api(kubernetes_client(None, None)).list_node().items
    except (CdError, ApiException, HTTPError):  # it is on its way
        return False
    conditions = [condition for node in nodes for condition in node.status.conditions or ()]
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


@pytest.fixture(scope="session")
def cluster_client(cluster_is_up: float) -> Any:
    """A client of the cluster that ``KUBECONFIG`` names, as its administrator."""
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
def cluster(cluster_client: Any, namespace: str) -> NamespaceClient:
    """The test's namespace, as its administrator."""
    return NamespaceClient(lambda: cluster_client, namespace, "web in production")


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


def deployer(client: Any, namespace: str, rules: list[dict[str, Any]], name: str = "deployer") -> str:
    """Return the token of a new ServiceAccount of a namespace that may do what these rules say."""
    from kubernetes.client import AuthenticationV1TokenRequest, CoreV1Api, V1TokenRequestSpec

    core = CoreV1Api(client)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": name}})
    allow(client, namespace, rules, name)
    body = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[]))
    return str(core.create_namespaced_service_account_token(name, namespace, body).status.token)


def allow(client: Any, namespace: str, rules: list[dict[str, Any]], name: str = "deployer") -> None:
    """Let the ServiceAccount of this name do what these rules say, and nothing else."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"apiVersion": f"{rbac}/v1", "metadata": {"name": name}}
    binding = {
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    objects = [{**metadata, "kind": "Role", "rules": rules}, {**metadata, "kind": "RoleBinding", **binding}]
    NamespaceClient(lambda: client, namespace, "the test").apply(objects, take=True)
    # The server hears of it a moment later.
    for rule in rules:
        wait_until(lambda rule=rule: _allowed(client, namespace, name, rule), f"{rule} to hold", timeout=120)  # type: ignore[misc]


def _allowed(client: Any, namespace: str, name: str, rule: dict[str, Any]) -> bool:
    from kubernetes.client import AuthorizationV1Api

    asked = {
        "namespace": namespace,
        "group": rule["apiGroups"][0],
        "resource": rule["resources"][0],
        "verb": rule["verbs"][-1],
    }
    user = f"system:serviceaccount:{namespace}:{name}"
    review = {"metadata": {"namespace": namespace}, "spec": {"user": user, "resourceAttributes": asked}}
    authorization = AuthorizationV1Api(client)
    answer = authorization.create_namespaced_local_subject_access_review(namespace, review)
    return bool(answer.status.allowed)


def kubeconfig_of(client: Any, user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """
    Return a kubeconfig for another user of the same cluster.

    :param user: how that one says who it is
    :param cluster: what is different about the cluster
    """
    authority = Path(client.configuration.ssl_ca_cert).read_bytes()
    known = {
        "server": client.configuration.host,
        "certificate-authority-data": b64encode(authority).decode(),
        **cluster,
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {key: value for key, value in known.items() if value}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "usual", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "usual",
    }
