"""The DAG of a cluster, in a real DagBag, and in every process the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.dag_factories.test_load_dags import SERVICES, bag

from airflow_cd.dag_factories import cluster_dag, load_dags
from airflow_cd.model.cluster import Cluster

CLUSTERS = """
clusters:
  - name: shop-eu
    schedule: "*/10 * * * *"
    timezone: Europe/Berlin
    owner: platform
    namespaces:
      - {name: shop, deployer: {}, quota: {pods: 50}, labels: {b: c, a: b}}
      - {name: nodes, network: isolated}
  - {name: silent, on_removed: keep}
"""
BROKEN = "  - {name: broken, namespaces: [{name: kube-system}]}\n"


def test_every_cluster_gets_its_dag(tmp_path: Path) -> None:
    found = bag(tmp_path, CLUSTERS + SERVICES)
    assert found.import_errors == {}
    assert {"cluster_shop-eu", "cluster_silent", "hello_delivery", "shout_rollback"} <= set(found.dags)
    dag = found.dags["cluster_shop-eu"]
    assert set(dag.task_ids) == {"namespaces.shop", "namespaces.nodes", "nodes", "api_versions", "undeclared"}
    assert not any(task.upstream_task_ids for task in dag.tasks)
    assert {task.owner for task in dag.tasks} == {"platform"}
    assert set(found.dags["cluster_silent"].task_ids) == {"nodes", "api_versions"}


def test_a_broken_cluster_takes_nothing_else_down(tmp_path: Path) -> None:
    found = bag(tmp_path, CLUSTERS + BROKEN + SERVICES)
    assert "cluster_shop-eu" in found.dags and "hello_delivery" in found.dags
    assert "cluster_broken" not in found.dags
    (error,) = found.import_errors.values()
    assert "services.yaml:11" in error and "kube-system" in error


@pytest.mark.parametrize("wanted", ["cluster_shop-eu", "cluster_delivery", "shout_deployment"])
def test_a_task_that_starts_gets_its_dag_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    # A service may be called as the DAGs of clusters begin.
    services = SERVICES.replace("name: hello\n", "name: cluster\n")
    (tmp_path / "services.yaml").write_text(CLUSTERS + BROKEN + services)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", wanted)
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
    load_dags("services.yaml", namespace)
    assert set(namespace) == {"__file__", wanted}


def test_a_remembered_file_has_its_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_cd.dag_factories import parse_cache

    monkeypatch.setattr(parse_cache, "_folder", lambda: tmp_path / "parsed")
    monkeypatch.setattr(parse_cache, "_SMALLEST", 0)
    (tmp_path / "services.yaml").write_text(CLUSTERS + SERVICES)
    for _ in range(2):
        namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
        load_dags("services.yaml", namespace)
        assert "cluster_shop-eu" in namespace
        assert list((tmp_path / "parsed").iterdir())
        monkeypatch.setattr("yaml.load", None)


def test_the_documentation_shows_whatever_is_written_as_it_is() -> None:
    cluster = {"name": "eu", "context": "a|<b>", "namespaces": [{"name": "shop", "deployer": {}}]}
    text = cluster_dag(Cluster.model_validate(cluster)).doc_md or ""
    assert "<b>" not in text.replace("\\<", "") and "shop/deployer" in text


PROBE = """
import sys
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.models.serialized_dag import SerializedDagModel
from airflow_cd.dag_factories import load_dags
found = {"__file__": sys.argv[1]}
load_dags("services.yaml", found)
for name, dag in sorted(found.items()):
    if isinstance(dag, DAG):
        dag.fileloc = dag.relative_fileloc = "services.py"
        print("HASH", name, SerializedDagModel.hash(DagSerialization.to_dict(dag)))
assert not [name for name in sys.modules if name.split(".")[0] in ("kubernetes", "kubernetes_asyncio")]
"""


def test_it_is_the_same_in_every_process_and_loads_no_vendor_library(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(CLUSTERS)

    def hashes(seed: str) -> list[str]:
        ran = subprocess.run(
            [sys.executable, "-c", PROBE, str(tmp_path / "services.py")],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "AIRFLOW_HOME": str(tmp_path)},
        )
        return [line for line in ran.stdout.splitlines() if line.startswith("HASH")]

    first = hashes("1")
    assert len(first) == 2 and first == hashes("77")
