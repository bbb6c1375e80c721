"""The tasks of a cluster's DAG on a cluster: what they leave, what they say, and whom they tell once."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.clusters.operators import (
    DeprecatedApisOperator,
    NamespaceOperator,
    NodeHealthOperator,
    UndeclaredNamespacesOperator,
)
from airflow_cd.exceptions import EngineError, TargetError
from airflow_cd.kubernetes import client as api
from airflow_cd.model.cluster import Cluster

told: list[dict[str, Any]] = []


class Recorder(BaseNotifier):
    def notify(self, context: Any) -> None:
        told.append(context["cd"])


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's importlib mode this module is not found by its name; notifiers are."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    told.clear()


class Runs:
    """What Airflow keeps of the runs of one task."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def next(self) -> Any:
        """Return the context of the next run."""
        ti = SimpleNamespace(
            run_id=f"scheduled__{uuid.uuid4()}",
            xcom_pull=lambda task_ids, key, include_prior_dates: self.kept.get(key),
            xcom_push=lambda key, value: self.kept.update({key: json.loads(json.dumps(value))}),
        )

        class Store(dict[str, Any]):
            def set(self, key: str, value: Any) -> None:
                self[key] = value

        return {"ti": ti, "task_state_store": Store()}


def declared(*namespaces: dict[str, Any], **more: Any) -> Cluster:
    events = ["nodes_unhealthy", "apis_removed", "namespaces_undeclared"]
    notify = [{"events": events, "notifier": f"{__name__}.Recorder"}]
    return Cluster.model_validate({"name": "eu", "namespaces": namespaces, "notify": notify, **more})


def namespaces(cluster: Cluster, name: str) -> Any:
    return NamespaceOperator(task_id=name, cluster=cluster, namespace=name).execute(Runs().next())


def test_a_namespace_is_kept_and_its_password_is_nowhere(
    cluster: api.NamespaceClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    login = {"conn_type": "docker", "host": "r.example", "login": "bot", "password": "pass-of-bot"}
    monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", json.dumps(login))
    shop = {
        "name": cluster.namespace,
        "deployer": {},
        "pull_secrets": [{"name": "regcred", "conn_id": "registry"}],
    }
    first = namespaces(declared(shop), cluster.namespace)
    assert "Secret/regcred" in first["created"] and "Role/airflow-cd-deployer" in first["created"]
    assert namespaces(declared(shop), cluster.namespace) == dict.fromkeys(first, [])
    log = "".join(capsys.readouterr())
    assert "is as declared" in log
    secret = cluster.get("v1", "Secret", "regcred")
    assert secret is not None
    for word in ("pass-of-bot", secret["data"][".dockerconfigjson"]):
        assert word not in log and word not in json.dumps(first)


def test_a_missing_connection_changes_nothing(cluster: api.NamespaceClient) -> None:
    shop = {
        "name": cluster.namespace,
        "quota": {"pods": 5},
        "pull_secrets": [{"name": "regcred", "conn_id": "nobody"}],
    }
    with pytest.raises(EngineError, match="no connection 'nobody'"):
        namespaces(declared(shop), cluster.namespace)
    assert cluster.get("v1", "ResourceQuota", "airflow-cd") is None


def test_a_policy_that_lets_nobody_through_is_warned_of(
    cluster: api.NamespaceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = {"name": cluster.namespace, "network": {"from_namespaces": ["no-such-namespace"]}}
    namespaces(declared(shop), cluster.namespace)
    assert "do not know namespace no-such-namespace" in capsys.readouterr().out


def test_an_undeclared_namespace_is_told_of_once(
    cluster: api.NamespaceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"eu-{uuid.uuid4().hex[:8]}"
    namespaces(declared({"name": cluster.namespace}, name=name), cluster.namespace)
    operator = UndeclaredNamespacesOperator(task_id="undeclared", cluster=declared(name=name))
    runs = Runs()
    for _ in "12":
        assert operator.execute(runs.next()) == [cluster.namespace]
    assert [one["namespaces"] for one in told] == [[cluster.namespace]]
    assert told[0]["cluster"] == name and told[0]["event"] == "namespaces_undeclared"
    assert f"kubectl delete namespace {cluster.namespace}" in capsys.readouterr().out
    # Declared again, and then not again: that is news.
    whole = UndeclaredNamespacesOperator(
        task_id="undeclared", cluster=declared({"name": cluster.namespace}, name=name)
    )
    assert whole.execute(runs.next()) == []
    operator.execute(runs.next())
    assert len(told) == 2


@pytest.fixture
def sick_node(cluster_client: Any) -> Iterator[str]:
    """A node without a machine, that takes no pods."""
    from kubernetes.client import ApiException, CoreV1Api

    core, name = CoreV1Api(cluster_client), f"zz-cd-test-{uuid.uuid4().hex[:8]}"
    taints = [{"key": "cd-test", "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    core.create_node({"metadata": {"name": name}, "spec": {"unschedulable": True, "taints": taints}})
    info = dict.fromkeys(
        ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion"), ""
    )
    info |= dict.fromkeys(("machineID", "operatingSystem", "osImage", "systemUUID"), "")
    core.patch_node_status(name, {"status": {"nodeInfo": {**info, "kubeletVersion": "v1.99.0"}}})
    yield name
    with suppress(ApiException):
        core.delete_node(name)


def test_healthy_nodes_are_listed(cluster_client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = NodeHealthOperator(task_id="nodes", cluster=declared()).execute(Runs().next())
    assert found["server"].startswith("v1.")
    log = capsys.readouterr().out
    assert any(one["ready"] == "ready" and one["name"] in log for one in found["nodes"])
    assert json.loads(json.dumps(found)) == found


def test_a_sick_node_fails_the_task_and_is_told_of_once(
    sick_node: str, capsys: pytest.CaptureFixture[str]
) -> None:
    operator, runs = NodeHealthOperator(task_id="nodes", cluster=declared(unready_after="0s")), Runs()
    for _ in "12":
        with pytest.raises(AirflowFailException, match=f"{sick_node}: not ready.*{sick_node}: its kubelet"):
            operator.execute(runs.next())
    problems = [one for one in runs.kept["return_value"]["problems"] if one["node"] == sick_node]
    assert {(one["severity"], one["kind"]) for one in problems} == {
        *(("error", "ready"), ("error", "kubelet"), ("warning", "cordoned"))
    }
    assert f"warning: {sick_node}: takes no new pods" in capsys.readouterr().out
    assert len(told) == 1 and told[0]["event"] == "nodes_unhealthy"


def test_certificates_that_end_soon_are_warned_of(cluster_client: Any) -> None:
    found = NodeHealthOperator(task_id="nodes", cluster=declared(certificates_warn="5000w")).execute(
        Runs().next()
    )
    kinds = {one["kind"] for one in found["problems"]}
    assert "certificate the API server's" in kinds


def test_removed_api_versions_are_told_of_once_and_fail_nothing(
    older_cluster: api.NamespaceClient, capsys: pytest.CaptureFixture[str]
) -> None:
    ingress = {
        "apiVersion": "networking.k8s.io/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "old"},
        "spec": {"backend": {"serviceName": "web", "servicePort": 80}},
    }
    older_cluster.create(ingress)
    operator, runs = (
        DeprecatedApisOperator(task_id="api_versions", cluster=declared(upgrade_to="1.22")),
        Runs(),
    )
    for _ in "12":
        found = operator.execute(runs.next())
    what = f"Ingress {older_cluster.namespace}/old"
    assert what in {one["what"] for one in found["uses"]} and found["until"] == "1.22"
    assert f"1.22 removes networking.k8s.io/v1beta1, which is used: {what}" in capsys.readouterr().out
    mine = [one for one in told if what in {use["what"] for use in one["uses"]}]
    assert mine and mine[0]["event"] == "apis_removed"


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from airflow_cd.hooks import kubernetes as clients

    monkeypatch.setattr(clients, "_RETRIED_SECONDS", 0.0)
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    file = tmp_path / "config"
    file.write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(file))
    cluster = declared({"name": "shop"}, context="nowhere")
    with pytest.raises(
        TargetError, match=r"cluster eu \(nowhere\), namespace shop: the cluster does not answer"
    ):
        namespaces(cluster, "shop")
