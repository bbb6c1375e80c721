"""Who uses API versions that are about to go, on a cluster that still has them."""

from __future__ import annotations

import gzip
import json
import warnings
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_cd.clusters.deprecated_apis import DeprecatedApiScanner, Use
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.removed_apis import METRIC


@pytest.fixture
def cluster(older_cluster: NamespaceClient) -> NamespaceClient:
    """The test's namespace on a cluster of 1.20."""
    return older_cluster


def uses(cluster: NamespaceClient, until: int = 25, server: int = 20) -> list[Use]:
    """Return those of this test's namespace."""
    return [
        one
        for one in DeprecatedApiScanner(cluster, server, until).uses()
        if f"{cluster.namespace}/" in one.what
    ]


def create(
    cluster: NamespaceClient, api_version: str, plural: str, obj: dict[str, Any], manager: str
) -> None:
    path = f"/apis/{api_version}/namespaces/{cluster.namespace}/{plural}"
    body = {"apiVersion": api_version, **obj}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster.request("POST", path, body, query={"fieldManager": manager})


def ingress(name: str, **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "annotations": annotations}
    return {
        "kind": "Ingress",
        "metadata": metadata,
        "spec": {"backend": {"serviceName": "web", "servicePort": 80}},
    }


def test_who_wrote_an_object_in_an_old_version_is_named(cluster: NamespaceClient) -> None:
    create(cluster, "extensions/v1beta1", "ingresses", ingress("old"), "carols-tool")
    newer = {
        "kind": "Ingress",
        "metadata": {"name": "new"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
    }
    create(cluster, "networking.k8s.io/v1", "ingresses", newer, "carols-tool")
    (found,) = uses(cluster)
    assert found.what == f"Ingress {cluster.namespace}/old" and found.minor == 22
    assert found.who.startswith("carols-tool, last on 20") and found.instead == "networking.k8s.io/v1"
    assert found.source.endswith("#v1-22")
    assert uses(cluster, until=21) == []
    # Once it is gone it is too late to warn.
    assert uses(cluster, until=23, server=22) == []


def test_what_kubectl_applied_counts_where_no_manager_tells(cluster: NamespaceClient) -> None:
    applied = json.dumps({"apiVersion": "extensions/v1beta1", "kind": "Ingress"})
    note = {"kubectl.kubernetes.io/last-applied-configuration": applied}
    create(
        cluster, "networking.k8s.io/v1beta1", "ingresses", ingress("web", **note), "kube-controller-manager"
    )
    (found,) = uses(cluster)
    assert (found.who, found.api_version) == ("kubectl apply", "extensions/v1beta1")


def test_parts_of_kubernetes_are_not_named(cluster: NamespaceClient) -> None:
    create(cluster, "extensions/v1beta1", "ingresses", ingress("own"), "kube-controller-manager")
    assert uses(cluster) == []


def test_where_only_the_old_version_is_there_its_objects_are_found(cluster: NamespaceClient) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "busybox:1.36"}]}
    job = {
        "kind": "CronJob",
        "metadata": {"name": "yearly"},
        "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
    }
    create(cluster, "batch/v1beta1", "cronjobs", job, "carols-tool")
    (found,) = uses(cluster)
    assert found.api_version == "batch/v1beta1" and found.minor == 25


def kept_release(cluster: NamespaceClient, name: str, objects: Any) -> None:
    packed = b64encode(gzip.compress(json.dumps(objects).encode())).decode()
    metadata = {
        "name": name,
        "labels": {"airflow-cd/holds": "objects", "airflow-cd/service": "web"},
        "annotations": {"airflow-cd/digest": "sha256:0123456789abcdef"},
    }
    cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": {"objects": packed}}
    )


def test_manifests_of_releases_are_looked_at(cluster: NamespaceClient) -> None:
    objects = [
        {"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}},
    ]
    kept_release(cluster, "cd.web.production.0123456789ab", objects)
    (found,) = uses(cluster)
    assert found.what == f"PodDisruptionBudget {cluster.namespace}/web"
    assert found.who == "release sha256:0123456789ab of web"


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"{"), gzip.compress(b'"text"')],
    ids=["nothing", "no gzip", "no JSON", "no list"],
)
def test_a_damaged_release_is_no_reason_to_see_nothing(cluster: NamespaceClient, content: bytes) -> None:
    kept_release(cluster, "whole", [{"apiVersion": "batch/v1beta1", "kind": "CronJob", "metadata": None}])
    metadata = {"name": "damaged", "labels": {"airflow-cd/holds": "objects"}}
    data = {"objects": b64encode(content).decode()}
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data})
    (found,) = uses(cluster)
    assert found.api_version == "batch/v1beta1"


def test_what_the_api_server_counts_is_told(cluster: NamespaceClient) -> None:
    create(cluster, "extensions/v1beta1", "ingresses", ingress("old"), "carols-tool")
    counted = [one for one in DeprecatedApiScanner(cluster, 20, 22).uses() if one.what == "ingresses"]
    assert "extensions/v1beta1" in {one.api_version for one in counted}
    assert "clients since it started" in counted[0].who


class Counting:
    """The cluster, but its API server has counted something else. :param lines: which it answers"""

    def __init__(self, client: Any, lines: list[bytes]) -> None:
        self._client, self._lines = client, lines

    def call_api(self, path: str, *args: Any, **kwargs: Any) -> Any:
        return self if path == "/metrics" else self._client.call_api(path, *args, **kwargs)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._lines)

    def release_conn(self) -> None:
        pass


def test_looking_is_not_counted_as_use(cluster: NamespaceClient) -> None:
    """There is no newer version of PodSecurityPolicies by which to list them."""
    lines = [
        f'{METRIC}{{group="{group}",removed_release="1.{minor}",resource="{name}",version="v1beta1"}} 1\n'
        for group, minor, name in (
            ("policy", 25, "podsecuritypolicies"),
            ("extensions", 22, "ingresses"),
            ("example.com", 23, "things"),
        )
    ]
    client = Counting(cluster.client, [line.encode() for line in lines])
    found = DeprecatedApiScanner(
        NamespaceClient(lambda: client, cluster.namespace, "cluster eu"), 20, 25
    ).uses()
    told = {one.what: one for one in found if "clients since" in one.who}
    assert set(told) == {"ingresses", "things"}
    assert (told["things"].source, told["things"].minor) == (METRIC, 23)


def test_without_the_right_to_read_metrics_all_else_is_told(
    cluster: NamespaceClient, caplog: pytest.LogCaptureFixture
) -> None:
    class NoMetrics:
        def __init__(self) -> None:
            self.other = kubernetes_client(None, None)
            self.other.set_default_header("Impersonate-User", "nobody")

        def call_api(self, path: str, *args: Any, **kwargs: Any) -> Any:
            client = self.other if path == "/metrics" else cluster.client
            return client.call_api(path, *args, **kwargs)

    create(cluster, "extensions/v1beta1", "ingresses", ingress("old"), "carols-tool")
    client = NoMetrics()
    assert len(uses(NamespaceClient(lambda: client, cluster.namespace, "cluster eu"))) == 1
    assert "/metrics of the API server cannot be read" in caplog.text
