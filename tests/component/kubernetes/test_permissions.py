"""What deployers and keepers may do, as the cluster itself decides it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from harness.waiting import wait_until

from airflow_cd.clusters.deprecated_apis import DeprecatedApiScanner
from airflow_cd.clusters.namespaces import Kept, RegistryLogin, reconcile_namespace, undeclared
from airflow_cd.exceptions import AccessDeniedError
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import Reference
from airflow_cd.kubernetes.permissions import DEPLOYER_RULES, keeper_role
from airflow_cd.model.cluster import Namespace

CORE, RBAC = "v1", "rbac.authorization.k8s.io/v1"


def acting_as(user: str) -> Any:
    """Return a client of the cluster as another user."""
    client = kubernetes_client(None, None)
    client.set_default_header("Impersonate-User", user)
    return client


def as_deployer(cluster: NamespaceClient, **settings: Any) -> NamespaceClient:
    """Return the namespace as its deployer has it, after it was declared."""
    content = {"name": cluster.namespace, "deployer": settings}
    reconcile_namespace(cluster, Namespace.model_validate(content), "eu", {})
    client = acting_as(f"system:serviceaccount:{cluster.namespace}:deployer")
    return NamespaceClient(lambda: client, cluster.namespace, "web in production")


def config_map(name: str = "settings") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "b"}}}


def of(obj: dict[str, Any]) -> Reference:
    return Reference(api_version=obj["apiVersion"], kind=obj["kind"], name=obj["metadata"]["name"])


def may(cluster: NamespaceClient, verb: str, group: str, resource: str, namespace: str | None = None) -> bool:
    """Ask the cluster."""
    name, _, part = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": name,
        "subresource": part,
        "namespace": cluster.namespace if namespace is None else namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(cluster.request("POST", path, review)["status"]["allowed"])


WORDS = {"read": ["get", "list", "watch"]}
WORDS["write"] = [*WORDS["read"], "create", "patch", "delete"]


def test_the_documentation_lists_what_a_deployer_may_do() -> None:
    text = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text()
    table = text.split("## The deployer")[1].split("| API group | resources | verbs |")[1].split("\n\n")[0]
    documented = []
    for row in table.strip().splitlines()[1:]:
        group, resources, verbs = (cell.strip() for cell in row.strip("|").split("|"))
        named = [verb.strip("` ") for verb in verbs.split(",")]
        documented.append(
            {
                "apiGroups": ["" if group == "core" else group.strip("`")],
                "resources": [name.strip("` ") for name in resources.split(",")],
                "verbs": WORDS.get(verbs, named),
            }
        )
    assert documented == list(DEPLOYER_RULES)


def test_a_deployer_may_do_what_is_listed_in_its_namespace_alone(cluster: NamespaceClient) -> None:
    deployer = as_deployer(cluster)
    for rule in DEPLOYER_RULES:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    assert may(deployer, verb, group, resource), (verb, group, resource)
                    assert not may(deployer, verb, group, resource, "default"), (verb, group, resource)


def test_a_deployer_applies_reads_and_deletes(cluster: NamespaceClient) -> None:
    deployer = as_deployer(cluster)
    # The API server hears of new roles a moment after they are stored.
    wait_until(lambda: may(deployer, "patch", "", "configmaps"), "its rights are known", timeout=30)
    deployer.validate([config_map()])
    deployer.apply([config_map()])
    assert deployer.diff([config_map()]) == []
    assert len(deployer.list("v1", "ConfigMap", {"a": "b"})) == 1
    assert deployer.merge(of(config_map()), {"data": {"x": "y"}}) is not None
    assert deployer.delete(of(config_map()), {"a": "b"})
    assert deployer.list("v1", "Pod", {}) == []


@pytest.mark.parametrize(
    ("group", "resource"),
    [
        ("", "secrets"),
        ("", "serviceaccounts/token"),
        ("", "pods/exec"),
        ("", "limitranges"),
        ("networking.k8s.io", "networkpolicies"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ],
)
def test_a_deployer_may_not_undo_what_keeps_its_namespace_apart(
    cluster: NamespaceClient, group: str, resource: str
) -> None:
    deployer = as_deployer(cluster)
    for verb in ("get", "create", "patch", "update", "delete"):
        assert not may(deployer, verb, group, resource), (verb, resource)
    for verb in ("patch", "create", "delete", "update"):
        assert not may(deployer, verb, "", "resourcequotas")
        assert not may(deployer, verb, "", "pods")


def test_a_deployer_has_nothing_outside_its_namespace(cluster: NamespaceClient) -> None:
    deployer = as_deployer(cluster)
    for resource in ("nodes", "namespaces", "persistentvolumes", "secrets", "configmaps"):
        assert not may(deployer, "list", "", resource, "")
    other = NamespaceClient(lambda: deployer.client, "default", "web elsewhere")
    with pytest.raises(AccessDeniedError, match='verbs: \\["patch"\\]'):
        other.apply([config_map()])
    role = {"apiVersion": RBAC, "kind": "Role", "metadata": {"name": "more"}, "rules": []}
    with pytest.raises(AccessDeniedError, match="roles"):
        deployer.apply([role])


def test_secrets_and_more_are_only_for_those_who_ask(cluster: NamespaceClient) -> None:
    things = {"api_groups": ["example.com"], "resources": ["things"], "verbs": ["get", "patch"]}
    deployer = as_deployer(cluster, secrets=True, extra_rules=[things])
    for verb in ("get", "create", "patch", "delete"):
        assert may(deployer, verb, "", "secrets")
        assert not may(deployer, verb, "", "secrets", "default")
    assert may(deployer, "patch", "example.com", "things")
    assert not may(deployer, "delete", "example.com", "things")
    # Less than before, once it is not declared any more.
    deployer = as_deployer(cluster)
    assert not may(deployer, "get", "", "secrets") and not may(deployer, "get", "example.com", "things")


def test_another_namespaces_account_may_deploy(cluster: NamespaceClient) -> None:
    as_deployer(cluster, service_account="worker", namespace="default")
    client = acting_as("system:serviceaccount:default:worker")
    NamespaceClient(lambda: client, cluster.namespace, "web").apply([config_map()])
    assert cluster.get("v1", "ServiceAccount", "worker") is None


@pytest.fixture
def keeper(cluster_client: Any, namespace: str) -> Iterator[Any]:
    """A client of a user who has the keeper's ClusterRole and nothing else."""
    from kubernetes.client import ApiException, RbacAuthorizationV1Api

    rbac = RbacAuthorizationV1Api(cluster_client)
    name = f"cd-test-keeper-{uuid.uuid4().hex[:8]}"
    rbac.create_cluster_role(keeper_role(name))
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}
    rbac.create_cluster_role_binding(
        {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    )
    yield acting_as(name)
    with suppress(ApiException):
        rbac.delete_cluster_role_binding(name)
        rbac.delete_cluster_role(name)


def test_the_keepers_role_is_enough_for_all_that_its_dag_does(keeper: Any, namespace: str) -> None:
    cluster = NamespaceClient(lambda: keeper, namespace, "cluster eu")
    whole = {
        "name": namespace,
        "labels": {"team": "shop"},
        "deployer": {"secrets": True, "extra_rules": [{"resources": ["pods/exec"], "verbs": ["create"]}]},
        "quota": {"pods": 5},
        "limits": {"default": {"cpu": "1"}},
        "network": "isolated",
        "pull_secrets": [{"name": "regcred", "conn_id": "registry"}],
    }
    logins = {"registry": RegistryLogin("r.example", "bot", "pass-of-bot")}
    assert len(reconcile_namespace(cluster, Namespace.model_validate(whole), "eu", logins).created) > 5
    assert reconcile_namespace(cluster, Namespace.model_validate(whole), "eu", logins) == Kept()
    assert (
        len(reconcile_namespace(cluster, Namespace.model_validate({"name": namespace}), "eu", {}).deleted) > 5
    )
    assert undeclared(cluster, f"none-{namespace}", []) == []
    assert cluster.request("GET", "/api/v1/nodes")["items"]
    assert cluster.request("GET", "/version")["gitVersion"]
    assert isinstance(DeprecatedApiScanner(cluster, server=20, until=32).uses(), list)
    assert not may(cluster, "delete", "", "namespaces")
    assert not may(cluster, "create", "", "pods")
