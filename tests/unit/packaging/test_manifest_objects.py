"""Objects that a service may bring, and those it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_cd.exceptions import ManifestError
from airflow_cd.packaging.manifest_files import documents
from airflow_cd.packaging.manifests import objects_in

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"


def objects(*texts: str) -> list[dict[str, Any]]:
    """Return the objects of files ``0.yaml``, ``1.yaml``, ..."""
    return objects_in(found for n, text in enumerate(texts) for found in documents(text, f"{n}.yaml"))


def names(found: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found]


def obj(api_version: str, kind: str, **metadata: str) -> str:
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": metadata or {"name": "one"}})


def test_lists_are_taken_apart() -> None:
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
    inner = {"apiVersion": "v1", "kind": "ConfigMapList", "items": [item]}
    both = {"apiVersion": "v1", "kind": "List", "items": [inner, {**item, "metadata": {"name": "two"}}]}
    assert names(objects(json.dumps(both))) == ["ConfigMap/one", "ConfigMap/two"]


def test_what_only_the_cluster_says_is_left_out() -> None:
    exported = """apiVersion: v1
kind: Service
metadata:
  name: hello
  labels: {generation: mine}
  uid: 8d2b7e3e
  resourceVersion: "17"
  generation: 3
  creationTimestamp: null
  selfLink: /api/v1/services/hello
  managedFields: [{manager: kubectl}]
spec: {ports: [{port: 80}]}
status: {loadBalancer: {}}
"""
    (service,) = objects(exported)
    assert service == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hello", "labels": {"generation": "mine"}},
        "spec": {"ports": [{"port": 80}]},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", ["document 1 (line 1)", "mapping", "list"]),
        (f"{CONFIG}---\nkind: ConfigMap\n", ["document 2 (line 5)", "apiVersion is missing", "apps/v1"]),
        ("apiVersion: v1\n", ["kind is missing"]),
        (obj("v1", "../x"), ["kind is not one", "'../x'"]),
        (obj("../v1", "ConfigMap"), ["apiVersion is not one", "'../v1'"]),
        ("apiVersion: v1\nkind: ConfigMap\n", ["no `metadata`"]),
        (obj("v1", "ConfigMap", name="a/b"), ["metadata.name is not one", "'a/b'"]),
        (obj("v1", "ConfigMap", name=".."), ["'..'"]),
        (obj("v1", "ConfigMap", name="a\nb"), [r"'a\nb'"]),
        (obj("v1", "ConfigMap", generateName="a-"), ["generateName", "'a-'", "metadata.name"]),
        (f"{CONFIG}---\n{CONFIG}", ["document 2", "ConfigMap/one is there twice", "document 1 (line 1)"]),
        ("{apiVersion: v1, kind: List, items: {a: b}}", ["`items` is a dict"]),
        ("{apiVersion: v1, kind: List, items: [1]}", ["item 1", "mapping"]),
        (obj("v1", "Secret"), ["Secret/one", "app.secrets", "SealedSecret", "external-secrets"]),
        (obj("v1", "Namespace"), ["Namespace/one", "whole cluster", "`clusters:`"]),
        (obj("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition"), ["administrator of the cluster"]),
        (obj("rbac.authorization.k8s.io/v1", "ClusterRole"), ["ClusterRole/one"]),
        (obj("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"), ["ClusterRoleBinding/one"]),
        (obj("v1", "PersistentVolume"), ["PersistentVolume/one"]),
        (obj("storage.k8s.io/v1", "StorageClass"), ["StorageClass/one"]),
        (obj("scheduling.k8s.io/v1", "PriorityClass"), ["PriorityClass/one"]),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_its_place(text: str, says: list[str]) -> None:
    with pytest.raises(ManifestError) as told:
        objects(text)
    for part in ("0.yaml, document ", *says):
        assert part in str(told.value)


def test_the_same_name_is_there_once_under_all_versions_of_a_kind() -> None:
    two = [obj("apps/v1", "Deployment"), obj("example.com/v1", "Deployment")]
    assert len(objects(*two)) == 2
    with pytest.raises(ManifestError, match=r"2\.yaml.*Deployment/one is there twice, also in 0\.yaml"):
        objects(*two, obj("apps/v1beta1", "Deployment"))


def test_kinds_of_others_may_be_called_like_those_of_the_cluster() -> None:
    assert names(objects(obj("example.com/v1", "Secret"), obj("example.com/v1", "Namespace"))) == [
        "Secret/one",
        "Namespace/one",
    ]
