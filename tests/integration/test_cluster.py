"""The whole DAG of a cluster, twice, with Airflow's own database and task runner, and the cluster itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

SERVICES = """
clusters:
  - name: {cluster}
    upgrade_to: "1.22"
    unready_after: 52w
    namespaces:
      - name: {namespace}
        deployer: {{}}
        quota: {{pods: 20}}
        network: isolated
        pull_secrets: [{{name: regcred, conn_id: registry}}]
    notify:
      - {{events: [namespaces_undeclared], notifier: recorder.Recorder, kwargs: {{path: {reported}}}}}
"""
RECORDER = """
import json
from airflow.sdk import BaseNotifier

class Recorder(BaseNotifier):
    def __init__(self, path, **kwargs):
        super().__init__(**kwargs)
        self.path = path

    def notify(self, context):
        with open(self.path, "a") as file:
            file.write(json.dumps(context["cd"]) + "\\n")
"""
RUN = """
import json, sys
from datetime import datetime, timedelta, timezone
from airflow.dag_processing.dagbag import DagBag

folder, dag_id = sys.argv[1:]
dag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder").dags[dag_id]
for number in range(2):
    run = dag.test(logical_date=datetime(2026, 1, 1 + number, tzinfo=timezone.utc))
    states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
    print("RESULT " + json.dumps({"state": str(run.state), "states": states}))
"""


@pytest.fixture
def old(cluster_client: Any) -> Iterator[tuple[str, str, str]]:
    """Names of a cluster entry, a namespace that was kept for it before, and one that is to be made."""
    from kubernetes.client import ApiException, CoreV1Api

    core, mark = CoreV1Api(cluster_client), uuid.uuid4().hex[:8]
    cluster, before, after = f"eu-{mark}", f"cd-test-before-{mark}", f"cd-test-{mark}"
    core.create_namespace({"metadata": {"name": before, "labels": {"airflow-cd/cluster": cluster}}})
    yield cluster, before, after
    for name in (before, after):
        with suppress(ApiException):
            core.delete_namespace(name, grace_period_seconds=0)


def test_the_whole_dag_twice(old: tuple[str, str, str], cluster_client: Any, tmp_path: Path) -> None:
    from kubernetes.client import CoreV1Api

    cluster, before, namespace = old
    folder, reported = tmp_path / "dags", tmp_path / "reported"
    folder.mkdir()
    text = SERVICES.format(cluster=cluster, namespace=namespace, reported=reported)
    (folder / "services.yaml").write_text(text)
    load = 'from airflow_cd.dag_factories import load_dags\nload_dags("services.yaml", globals())\n'
    (folder / "services.py").write_text(load)
    (tmp_path / "recorder.py").write_text(RECORDER)
    login = {"conn_type": "docker", "host": "r.example", "login": "bot", "password": "pass-of-bot"}
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_REGISTRY": json.dumps(login),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
    }
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True, text=True)
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), f"cluster_{cluster}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    output = ran.stdout + ran.stderr
    results = [json.loads(line[7:]) for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert ran.returncode == 0 and len(results) == 2, output[-5000:]
    tasks = (f"namespaces.{namespace}", "nodes", "api_versions", "undeclared")
    for result in results:
        assert result == {"state": "success", "states": dict.fromkeys(tasks, "success")}, output[-5000:]

    core = CoreV1Api(cluster_client)
    assert core.read_namespaced_secret("regcred", namespace).type == "kubernetes.io/dockerconfigjson"
    assert core.read_namespace(before).status.phase == "Active"
    # Both runs found it, and the second one knew that it had been reported.
    assert output.count(f"Namespace {before} is not declared any more") == 2
    assert "failed:" not in output
    (one,) = [json.loads(line) for line in reported.read_text().splitlines()]
    assert one["namespaces"] == [before] and one["cluster"] == cluster
    assert f"Everything in namespace {namespace} is as declared" in output
    kept = (tmp_path / "home" / "airflow.db").read_bytes()
    assert b"pass-of-bot" not in kept and "pass-of-bot" not in output
