"""A namespace becomes what is declared, stays so, and what others made there stays theirs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.cluster import Counted

from airflow_cd.clusters.namespaces import (
    Kept,
    RegistryLogin,
    namespace_objects,
    reconcile_namespace,
    undeclared,
    unselectable,
)
from airflow_cd.exceptions import ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import Reference
from airflow_cd.model.cluster import Namespace

LOGINS = {"registry": RegistryLogin("r.example:5000", "bot", "pass-of-bot")}
PULL = [{"name": "regcred", "conn_id": "registry"}]
RBAC = "rbac.authorization.k8s.io/v1"
POLICY = "networking.k8s.io/v1"


def declared(name: str, **content: Any) -> Namespace:
    return Namespace.model_validate({"name": name, **content})


def kept(cluster: NamespaceClient, entry: str = "eu", **content: Any) -> Kept:
    return reconcile_namespace(cluster, declared(cluster.namespace, **content), entry, LOGINS)


def edit(cluster: NamespaceClient, api_version: str, kind: str, name: str, patch: dict[str, Any]) -> None:
    """Change an object as another user."""
    other = NamespaceClient(lambda: cluster.client, cluster.namespace, "elsewhere", field_manager="carol")
    assert other.merge(Reference(api_version=api_version, kind=kind, name=name), patch) is not None


@pytest.fixture
def absent(cluster_client: Any) -> Iterator[NamespaceClient]:
    """A namespace that is not there."""
    from kubernetes.client import ApiException, CoreV1Api

    name = f"cd-test-{uuid.uuid4().hex[:10]}"
    yield NamespaceClient(lambda: cluster_client, name, "cluster eu")
    with suppress(ApiException):
        CoreV1Api(cluster_client).delete_namespace(name, grace_period_seconds=0)


EVERYTHING: dict[str, Any] = {
    "labels": {"team": "shop", "pod-security.kubernetes.io/enforce": "baseline"},
    "deployer": {},
    "service_accounts": ["web"],
    "quota": {"pods": 50, "requests.cpu": "4"},
    "limits": {"default": {"cpu": "500m"}, "default_request": {"cpu": "100m"}},
    "network": {"ingress": "namespace", "from_namespaces": ["default"], "egress": "namespace"},
    "pull_secrets": PULL,
}


def test_a_namespace_is_made_with_all_that_is_declared(absent: NamespaceClient) -> None:
    found = kept(absent, **EVERYTHING)
    assert f"Namespace/{absent.namespace}" in found.created and not found.deleted
    live = absent.request("GET", f"/api/v1/namespaces/{absent.namespace}")["metadata"]["labels"]
    assert live["team"] == "shop" and live["kubernetes.io/metadata.name"] == absent.namespace
    quota = absent.get("v1", "ResourceQuota", "airflow-cd")
    assert quota is not None and quota["spec"]["hard"] == {"pods": "50", "requests.cpu": "4"}
    limits = absent.get("v1", "LimitRange", "airflow-cd")
    assert limits is not None and limits["spec"]["limits"][0]["defaultRequest"] == {"cpu": "100m"}
    policies = {one["metadata"]["name"] for one in absent.list(POLICY, "NetworkPolicy", {})}
    names = ("deny", "from-namespace", "from-others", "to-namespace", "to-dns")
    assert policies == {f"airflow-cd-{name}" for name in names}
    for name in ("web", "deployer", "default"):
        account = absent.get("v1", "ServiceAccount", name)
        assert account is not None and account["imagePullSecrets"] == [{"name": "regcred"}]
    binding = absent.get(RBAC, "RoleBinding", "airflow-cd-deployer")
    assert binding is not None and binding["subjects"][0]["namespace"] == absent.namespace

    assert kept(absent, **EVERYTHING) == Kept()


def test_a_namespace_that_is_as_declared_is_written_to_by_nobody(cluster_client: Any, namespace: str) -> None:
    counted = Counted(cluster_client)
    cluster = NamespaceClient(lambda: counted, namespace, "cluster eu")
    kept(cluster, **EVERYTHING)
    before = [one["metadata"]["resourceVersion"] for one in cluster.list(RBAC, "Role", {})]
    requests = counted.during(lambda: kept(cluster, **EVERYTHING))
    assert {method for method, _ in requests} <= {"GET", "PATCH"}  # dry runs are patches
    assert [one["metadata"]["resourceVersion"] for one in cluster.list(RBAC, "Role", {})] == before


def test_what_was_changed_by_hand_is_put_right_and_told(
    cluster: NamespaceClient, caplog: pytest.LogCaptureFixture
) -> None:
    kept(cluster, quota={"pods": 50}, deployer={})
    edit(cluster, "v1", "ResourceQuota", "airflow-cd", {"spec": {"hard": {"pods": "5000"}}})
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    edit(cluster, RBAC, "Role", "airflow-cd-deployer", {"rules": everything})
    caplog.set_level("INFO")
    found = kept(cluster, quota={"pods": 50}, deployer={})
    assert set(found.changed) == {"ResourceQuota/airflow-cd", "Role/airflow-cd-deployer"}
    assert "-    pods: 5k" in caplog.text and "+    pods: '50'" in caplog.text
    role = cluster.get(RBAC, "Role", "airflow-cd-deployer")
    assert role is not None and everything[0] not in role["rules"]


def test_what_left_the_declaration_is_deleted_and_nothing_else(cluster: NamespaceClient) -> None:
    theirs = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "theirs"}}
    NamespaceClient(lambda: cluster.client, cluster.namespace, "", field_manager="carol").create(theirs)
    kept(cluster, **EVERYTHING)
    found = kept(cluster)
    assert set(found.deleted) == {
        *("ServiceAccount/web", "ServiceAccount/deployer", "Secret/regcred"),
        *("ResourceQuota/airflow-cd", "LimitRange/airflow-cd"),
        *("Role/airflow-cd-deployer", "RoleBinding/airflow-cd-deployer"),
        *("NetworkPolicy/airflow-cd-deny", "NetworkPolicy/airflow-cd-from-namespace"),
        *("NetworkPolicy/airflow-cd-from-others", "NetworkPolicy/airflow-cd-to-namespace"),
        "NetworkPolicy/airflow-cd-to-dns",
    }
    assert found.let_go == ("ServiceAccount/default",)
    assert cluster.get("v1", "ServiceAccount", "theirs") is not None
    default = cluster.get("v1", "ServiceAccount", "default")
    assert default is not None and "imagePullSecrets" not in default
    assert "labels" not in default["metadata"]
    assert kept(cluster) == Kept()


def test_a_service_account_that_was_there_before_is_used_and_never_deleted(cluster: NamespaceClient) -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "web", "labels": {"made-by": "carol"}},
        "imagePullSecrets": [{"name": "carols"}],
    }
    NamespaceClient(lambda: cluster.client, cluster.namespace, "", field_manager="carol").create(theirs)
    for _ in "12":
        kept(cluster, service_accounts=["web"], pull_secrets=PULL)
        account = cluster.get("v1", "ServiceAccount", "web")
        assert account is not None
        assert account["imagePullSecrets"] == [{"name": "regcred"}, {"name": "carols"}]
    # First without the Secret, then not at all.
    kept(cluster, service_accounts=["web"])
    account = cluster.get("v1", "ServiceAccount", "web")
    assert account is not None and account["imagePullSecrets"] == [{"name": "carols"}]
    found = kept(cluster)
    assert found.let_go == ("ServiceAccount/web",)
    account = cluster.get("v1", "ServiceAccount", "web")
    assert account is not None and account["imagePullSecrets"] == [{"name": "carols"}]
    assert account["metadata"]["labels"] == {"made-by": "carol"}


def test_somebody_elses_secret_is_not_overwritten(cluster: NamespaceClient) -> None:
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "regcred"}, "data": {"a": "Yg=="}}
    cluster.create(theirs)
    with pytest.raises(ManifestError, match="Secret/regcred .* was not made from here"):
        kept(cluster, pull_secrets=PULL)
    found = cluster.get("v1", "Secret", "regcred")
    assert found is not None and found["data"] == {"a": "Yg=="}


def test_a_new_password_is_written_and_never_told(
    cluster: NamespaceClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kept(cluster, pull_secrets=PULL)
    newer = {"registry": RegistryLogin("r.example:5000", "bot", "another-pass")}
    found = reconcile_namespace(cluster, declared(cluster.namespace, pull_secrets=PULL), "eu", newer)
    assert found.changed == ("Secret/regcred",)
    secret = cluster.get("v1", "Secret", "regcred")
    assert secret is not None and secret["type"] == "kubernetes.io/dockerconfigjson"
    (wanted,) = namespace_objects(declared("any", pull_secrets=PULL), "eu", newer)[:1]
    assert secret["data"] == wanted["data"]
    for secrets in ("pass-of-bot", "another-pass", wanted["data"][".dockerconfigjson"]):
        assert secrets not in caplog.text
    assert "another-pass" not in repr(newer)


def test_an_invalid_object_changes_nothing(cluster: NamespaceClient) -> None:
    kept(cluster, quota={"pods": 50})
    with pytest.raises(ManifestError, match=r"LimitRange/airflow-cd(.|\n)*default request"):
        kept(
            cluster,
            quota={"pods": 5},
            limits={"default": {"cpu": "1"}, "default_request": {"cpu": "2"}},
        )
    quota = cluster.get("v1", "ResourceQuota", "airflow-cd")
    assert quota is not None and quota["spec"]["hard"] == {"pods": "50"}


def test_a_namespace_of_another_entry_is_left_to_it(cluster: NamespaceClient) -> None:
    kept(cluster, labels={"team": "shop"})
    with pytest.raises(TargetError, match="kept for the cluster entry 'eu'"):
        kept(cluster, entry="us", labels={"team": "other"})
    live = cluster.request("GET", f"/api/v1/namespaces/{cluster.namespace}")
    assert live["metadata"]["labels"]["team"] == "shop"


def test_labels_of_others_stay_and_ours_go_when_they_are_not_declared(cluster: NamespaceClient) -> None:
    path = f"/api/v1/namespaces/{cluster.namespace}"
    patch = {"metadata": {"labels": {"theirs": "1"}}}
    cluster.request("PATCH", path, patch, "application/merge-patch+json", {"fieldManager": "carol"})
    kept(cluster, labels={"team": "shop"})
    assert kept(cluster).changed == (f"Namespace/{cluster.namespace}",)
    labels = cluster.request("GET", path)["metadata"]["labels"]
    assert labels["theirs"] == "1" and "team" not in labels


def test_a_namespace_that_is_being_deleted_is_said_to_be(
    cluster: NamespaceClient, cluster_client: Any
) -> None:
    from kubernetes.client import CoreV1Api

    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "finalizers": ["example.com/held"]},
    }
    cluster.create(held)
    path = f"/api/v1/namespaces/{cluster.namespace}"
    CoreV1Api(cluster_client).delete_namespace(cluster.namespace)
    try:
        wait_until(
            lambda: cluster.request("GET", path)["status"]["phase"] == "Terminating", "it goes", timeout=20
        )
        with pytest.raises(TargetError, match="is being deleted"):
            kept(cluster)
    finally:
        cluster.merge(
            Reference(api_version="v1", kind="ConfigMap", name="held"), {"metadata": {"finalizers": None}}
        )


def test_what_is_not_declared_any_more_is_found_and_stays(cluster: NamespaceClient) -> None:
    entry = f"eu-{uuid.uuid4().hex[:6]}"
    kept(cluster, entry=entry)
    assert undeclared(cluster, entry, [cluster.namespace]) == []
    assert undeclared(cluster, entry, []) == [cluster.namespace]
    assert unselectable(cluster, [cluster.namespace]) == []
    assert unselectable(cluster, ["no-such-namespace"]) == ["no-such-namespace"]


def test_half_of_it_is_made_whole(cluster_client: Any, namespace: str) -> None:
    """Whenever a worker is killed in the middle, the next run ends as one that was never disturbed."""

    class Killed(Exception):
        pass

    class Mortal(Counted):
        left = 10**9

        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            changes = method != "GET" and ("dryRun", "All") not in kwargs.get("query_params", ())
            if changes:
                if self.left == 0:
                    raise Killed
                self.left -= 1
            return super().call_api(path, method, *args, **kwargs)

    mortal = Mortal(cluster_client)
    cluster = NamespaceClient(lambda: mortal, namespace, "cluster eu")

    def interrupted(**content: Any) -> None:
        writes = 0
        while True:
            mortal.left = writes
            try:
                kept(cluster, **content)
            except Killed:
                writes = 1
                continue
            mortal.left = 10**9
            assert kept(cluster, **content) == Kept()
            return

    interrupted(**EVERYTHING)
    assert cluster.get("v1", "Secret", "regcred") is not None
    interrupted()
    assert cluster.get("v1", "Secret", "regcred") is None
    assert cluster.get("v1", "ServiceAccount", "default") is not None
