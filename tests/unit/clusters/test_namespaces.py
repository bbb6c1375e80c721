"""The objects of a namespace, without a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_cd.clusters.namespaces import (
    KEPT_KINDS,
    RegistryLogin,
    namespace_object,
    namespace_objects,
)
from airflow_cd.model.cluster import Namespace


def policies(network: Any) -> dict[str, Any]:
    """Return the specs of the network policies, by name."""
    namespace = Namespace.model_validate({"name": "shop", "network": network})
    found = namespace_objects(namespace, "eu", {})
    return {one["metadata"]["name"].removeprefix("airflow-cd-"): one["spec"] for one in found}


def test_an_open_namespace_has_no_policies() -> None:
    assert policies("open") == policies({"ingress": "open"}) == {}


def test_an_isolated_namespace_is_closed_but_for_itself_and_dns() -> None:
    found = policies("isolated")
    assert set(found) == {"deny", "from-namespace", "to-namespace", "to-dns"}
    assert found["deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert found["from-namespace"]["ingress"] == [{"from": [{"podSelector": {}}]}]
    assert found["to-namespace"]["egress"] == [{"to": [{"podSelector": {}}]}]
    (dns,) = found["to-dns"]["egress"]
    assert {(one["port"], one["protocol"]) for one in dns["ports"]} >= {(53, "UDP"), (53, "TCP")}
    # To everybody, it would be a way out of the cluster.
    assert dns["to"] == [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "169.254.20.10/32"}}]


def test_named_namespaces_are_let_in_and_no_more_than_said() -> None:
    found = policies({"ingress": "none", "from_namespaces": ["front"]})
    assert set(found) == {"deny", "from-others"}
    label = {"kubernetes.io/metadata.name": "front"}
    assert found["from-others"]["ingress"] == [{"from": [{"namespaceSelector": {"matchLabels": label}}]}]
    assert found["deny"]["policyTypes"] == ["Ingress"]
    outward = policies({"ingress": "open", "egress": "namespace", "to_namespaces": ["db"]})
    assert set(outward) == {"deny", "to-namespace", "to-dns", "to-others"}
    assert outward["deny"]["policyTypes"] == ["Egress"]


WHOLE = {
    "name": "shop",
    "labels": {"b": "1", "a": "2"},
    "deployer": {"service_account": "web"},
    "service_accounts": ["web", "web"],
    "quota": {"pods": 5, "requests.cpu": "4"},
    "limits": {"max": {"cpu": "2"}},
    "network": "isolated",
    "pull_secrets": [{"name": "regcred", "conn_id": "registry"}],
}
LOGINS = {"registry": RegistryLogin("r.example", "bot", "pass")}


def test_everything_is_labelled_and_of_a_kind_that_is_pruned() -> None:
    objects = namespace_objects(Namespace.model_validate(WHOLE), "eu", LOGINS)
    assert {(one["apiVersion"], one["kind"]) for one in objects} == set(KEPT_KINDS)
    assert {one["metadata"]["labels"]["airflow-cd/cluster"] for one in objects} == {"eu"}
    assert len({(one["kind"], one["metadata"]["name"]) for one in objects}) == len(objects)


def test_the_same_declaration_makes_the_same_objects() -> None:
    def made(definition: dict[str, Any]) -> str:
        namespace = Namespace.model_validate(definition)
        return json.dumps([namespace_object(namespace, "eu"), *namespace_objects(namespace, "eu", LOGINS)])

    assert made(WHOLE) == made(json.loads(json.dumps(WHOLE)))


@pytest.mark.parametrize("secrets", [True, False])
def test_secrets_are_written_by_those_who_asked_alone(secrets: bool) -> None:
    namespace = Namespace.model_validate({"name": "shop", "deployer": {"secrets": secrets}})
    (role,) = (one for one in namespace_objects(namespace, "eu", {}) if one["kind"] == "Role")
    assert any("secrets" in rule["resources"] for rule in role["rules"]) == secrets
