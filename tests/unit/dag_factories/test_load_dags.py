"""The DAGs a services file becomes, in a real DagBag."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from airflow_cd.dag_factories import delivery_dag, deployment_dag, load_dags
from airflow_cd.model.service import Service

SERVICES = """
services:
  - &hello
    name: hello
    pipeline: delivery
    source: {repository: "https://token@git.example/hello.git"}
    test: {unit: {commands: [[pytest]]}, slow: {commands: [[pytest, -m, slow]]}}
    environments:
      - {name: staging, target: {local: {command: [app], port: 9001}}, health: [{http: /healthz}]}
      - {name: production, target: {local: {command: [app], port: 9002}}, approval: {approvers: [bob]}}
  - name: shout
    pipeline: deployment
    source: {repository: /srv/git/shout.git}
    environments:
      - {name: production, target: {local: {command: [app], port: 9003}}}
"""
BROKEN = """
  - name: broken
    buld: []
    pipeline: delivery
    source: {repository: /srv/git/broken.git}
    environments:
      - {name: production, target: {local: {command: [app], port: 9004}}}
"""


def bag(folder: Path, services: str) -> DagBag:
    (folder / "services.yaml").write_text(dedent(services))
    (folder / "services.py").write_text(
        'from airflow_cd.dag_factories import load_dags\nload_dags("services.yaml", globals())\n'
    )
    return DagBag(folder, bundle_path=folder)


def test_every_service_gets_its_dag(tmp_path: Path) -> None:
    found = bag(tmp_path, SERVICES)
    assert found.import_errors == {}
    assert set(found.dags) == {"hello_delivery", "hello_rollback", "shout_deployment", "shout_rollback"}
    assert set(found.dags["hello_delivery"].task_ids) == {
        *("build", "test.unit", "test.slow", "package", "staging.deploy", "staging.health"),
        *("production.approve", "production.deploy", "production.health", "production.rollback"),
    }
    assert set(found.dags["shout_deployment"].task_ids) == {
        *("build", "package", "production.deploy", "production.health", "production.rollback")
    }


def test_the_order_of_the_tasks(tmp_path: Path) -> None:
    dag = bag(tmp_path, SERVICES).dags["hello_delivery"]
    edges = {(task.task_id, after) for task in dag.tasks for after in task.downstream_task_ids}
    assert edges == {
        *(("build", "test.unit"), ("build", "test.slow"), ("test.unit", "package"), ("test.slow", "package")),
        *(("package", "staging.deploy"), ("staging.deploy", "staging.health")),
        *(("staging.health", "production.approve"), ("production.approve", "production.deploy")),
        *(("production.deploy", "production.health"), ("production.health", "production.rollback")),
        ("production.deploy", "production.rollback"),
    }
    rollback = dag.get_task("production.rollback")
    assert rollback.is_teardown and not rollback.on_failure_fail_dagrun
    assert dag.get_task("production.deploy").is_setup


def test_a_broken_service_leaves_the_others(tmp_path: Path) -> None:
    found = bag(tmp_path, SERVICES + BROKEN)
    assert set(found.dags) == {"hello_delivery", "hello_rollback", "shout_deployment", "shout_rollback"}
    (error,) = found.import_errors.values()
    assert "services.yaml:" in error and "'broken'" in error and "'buld'" in error


def test_a_broken_file_is_the_dag_files_error(tmp_path: Path) -> None:
    found = bag(tmp_path, "services: [")
    assert not found.dags
    assert "not valid YAML" in next(iter(found.import_errors.values()))


def test_a_task_that_starts_gets_its_dag_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services.yaml").write_text(SERVICES + BROKEN)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "shout_deployment")
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
    load_dags("services.yaml", namespace)
    assert set(namespace) == {"__file__", "shout_deployment"}


def service(**changes: Any) -> Service:
    definition = {
        "name": "hello",
        "pipeline": "delivery",
        "source": {"repository": "https://token@git.example/hello.git"},
        "environments": [{"name": "production", "target": {"local": {"command": ["app"], "port": 1}}}],
        **changes,
    }
    return Service.model_validate(definition)


def test_one_word_makes_a_delivery_a_deployment() -> None:
    one = service()
    assert "production.approve" in delivery_dag(one).task_ids
    other = deployment_dag(one)
    assert other.dag_id == "hello_deployment"
    assert "production.approve" not in other.task_ids


@pytest.mark.parametrize(
    ("make", "shown"), [(delivery_dag, ["Service", "Approval"]), (deployment_dag, ["Service"])]
)
def test_a_deployment_that_nobody_is_asked_about_shows_no_approval(make: Any, shown: list[str]) -> None:
    """As the UI sees it: by the serialized DAG."""
    dag = DagSerialization.from_dict(DagSerialization.to_dict(make(service())))
    assert list(dag.get_task("production.deploy").operator_extra_link_dict) == shown


def test_the_documentation_explains_and_keeps_secrets() -> None:
    text = delivery_dag(service(environments=service().model_dump(mode="json")["environments"])).doc_md or ""
    assert "git.example/hello.git" in text and "token" not in text
    assert "airflow cd approve hello" in text


def test_a_revision_is_a_full_sha_or_nothing() -> None:
    params = delivery_dag(service()).params
    assert params["revision"] is None
    params["revision"] = "a" * 40
    params.validate()
    with pytest.raises(ValueError, match="does not match|Invalid"):
        params["revision"] = "main"
