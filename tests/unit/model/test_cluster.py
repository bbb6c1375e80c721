"""Clusters in a services file: a mistake names its line, and costs no service anything."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from airflow_cd.model.cluster import Cluster
from airflow_cd.model.services_file.loader import Definitions, load_services

SERVICES = """
services:
  - name: hello
    pipeline: deployment
    source: {repository: /srv/git/hello.git}
    environments:
      - {name: production, target: {local: {command: [app], port: 9001}}}
"""


def load(tmp_path: Path, clusters: str) -> Definitions:
    file = tmp_path / "services.yaml"
    file.write_text("clusters:\n" + indent(dedent(clusters).strip(), "  ") + "\n" + SERVICES)
    return load_services(file)


def test_everything_that_can_be_declared(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        - name: shop-eu
          conn_id: kubernetes_default
          context: eu
          schedule: "*/10 * * * *"
          timezone: Europe/Berlin
          upgrade_to: "1.32"
          on_removed: keep
          notify: [{events: [nodes_unhealthy], notifier: a.b.Notifier}]
          namespaces:
            - name: shop
              labels: {team: shop, pod-security.kubernetes.io/enforce: restricted}
              deployer:
                service_account: deployer
                secrets: true
                extra_rules: [{api_groups: [example.com], resources: [things], verbs: [get]}]
              service_accounts: [web]
              quota: {requests.cpu: "4", limits.memory: 8Gi, pods: 50, count/deployments.apps: 5}
              limits: {default: {cpu: 500m}, default_request: {cpu: 0.1}, max: {memory: 2Gi}}
              network: isolated
              pull_secrets: [{name: regcred, conn_id: registry}]
            - name: open-house
        """,
    )
    assert found.errors == ()
    (cluster,) = found.clusters
    shop, house = cluster.namespaces
    assert shop.quota["pods"] == "50" and shop.limits is not None
    assert shop.limits.default_request == {"cpu": "0.1"}
    assert (shop.network.ingress, shop.network.egress) == ("namespace", "namespace")
    assert (house.network.ingress, house.network.egress) == ("open", "open")
    assert house.deployer is None
    assert cluster.dag_id == "cluster_shop-eu"


@pytest.mark.parametrize(
    ("line", "at", "says"),
    [
        ("schedul: daily", 3, ["unknown key 'schedul'", "Did you mean 'schedule'?"]),
        ("schedule: daily", 3, ["'daily'", "five fields"]),
        ("timezone: Berlin", 3, ["'Berlin'", "IANA"]),
        ("on_removed: delete", 3, ["'delete'", "'keep' or 'report'"]),
        ("upgrade_to: 1.25", 3, ["got 1.25", "quotes"]),
        ("upgrade_to: '2.0'", 3, ["'2.0'"]),
        ("notify: [{events: [deployed], notifier: a.B}]", 3, ["deployed", "a cluster never has"]),
        ("namespaces: [{name: Shop}]", 3, ["namespaces.0.name", "'Shop'"]),
        ("namespaces: [{name: kube-system}]", 3, ["'kube-system'", "Kubernetes itself"]),
        ("namespaces: [{name: a}, {name: a}]", 3, ["names a twice"]),
        ("namespaces: [{name: a, labels: {airflow-cd/x: y}}]", 3, ["airflow-cd/x", "without you"]),
        ("namespaces: [{name: a, labels: {team: yes}}]", 3, ["got True", "quotes"]),
        ("namespaces: [{name: a, labels: {team: 'a b'}}]", 3, ["'a b'"]),
        ("namespaces: [{name: a, quota: {pods: many}}]", 3, ["'many'", "namespaces.0.quota.pods"]),
        ("namespaces: [{name: a, limits: {}}]", 3, ["says nothing", "default_request"]),
        ("namespaces: [{name: a, network: closed}]", 3, ["'closed'", "open nor isolated"]),
        ("namespaces: [{name: a, network: {ingress: open, from_namespaces: [b]}}]", 3, ["from_namespaces"]),
        (
            "namespaces: [{name: a, network: {to_namespaces: [b]}}]",
            3,
            ["to_namespaces", "lets everything out"],
        ),
        ("namespaces: [{name: a, pull_secrets: [{name: r}]}]", 3, ["conn_id' is missing"]),
        (
            "namespaces: [{name: a, pull_secrets: [{name: r, conn_id: x}, {name: r, conn_id: y}]}]",
            3,
            ["two Secrets"],
        ),
        ("namespaces: [{name: a, deployer: {extra_rules: [{verbs: [get]}]}}]", 3, ["resources' is missing"]),
        ("namespaces: [{name: a, deployer: {service_acount: b}}]", 3, ["Did you mean 'service_account'?"]),
    ],
)
def test_a_broken_cluster_is_reported_and_all_else_loads(
    tmp_path: Path, line: str, at: int, says: list[str]
) -> None:
    found = load(tmp_path, f"- name: bad\n  {line}\n- name: good\n")
    assert [service.name for service in found.services] == ["hello"]
    assert [cluster.name for cluster in found.clusters] == ["good"]
    (error,) = found.errors
    assert error.line == at
    for text in says:
        assert text in str(error), str(error)


def test_two_of_one_name_are_one_and_an_error(tmp_path: Path) -> None:
    found = load(tmp_path, "- {name: eu, schedule: '0 0 * * *'}\n- {name: eu, schedule: '1 1 * * *'}")
    assert [cluster.schedule for cluster in found.clusters] == ["0 0 * * *"]
    (error,) = found.errors
    assert error.line == 3 and "two clusters of this name, the other one in line 2" in error.problem


@pytest.mark.parametrize("name", ["delivery", "deployment", "rollback", "drift"])
def test_none_is_called_as_the_dag_of_a_service_called_cluster(tmp_path: Path, name: str) -> None:
    (error,) = load(tmp_path, f"- name: {name}").errors
    assert "DAGs of services are called so" in error.problem


def test_clusters_need_no_services(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("clusters: [{name: eu}]\n")
    assert [cluster.name for cluster in load_services(file).clusters] == ["eu"]
    file.write_text("clusters: {name: eu}\n")
    with pytest.raises(Exception, match="'clusters' is not a list"):
        load_services(file)


def test_who_is_asked_about_one_service_does_not_look_at_clusters(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("clusters: [{name: Wrong}]\n" + SERVICES)
    found = load_services(file, only="hello")
    assert [service.name for service in found.services] == ["hello"] and found.errors == ()


def test_a_deployer_may_be_another_namespaces() -> None:
    definition: dict[str, Any] = {"service_account": "worker", "namespace": "airflow"}
    cluster = Cluster.model_validate({"name": "eu", "namespaces": [{"name": "shop", "deployer": definition}]})
    deployer = cluster.namespaces[0].deployer
    assert deployer is not None and deployer.namespace == "airflow"


def test_the_documentation_names_every_key() -> None:
    text = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text()
    from airflow_cd.model.cluster import Deployer, Limits, Namespace, Network, PullSecret, Rule

    for model in (Cluster, Namespace, Deployer, Limits, Network, PullSecret, Rule):
        for name in model.model_fields:
            assert re.search(rf"\b{name}\b", text), f"{model.__name__}.{name}"
