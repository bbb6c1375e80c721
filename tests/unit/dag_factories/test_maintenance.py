"""The DAG that removes what no service keeps: only where the file asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.dag_factories.test_load_dags import BROKEN, SERVICES, bag

from airflow_cd.dag_factories import load_dags

MAINTENANCE = "maintenance: {schedule: '0 3 * * *', timezone: Europe/Berlin, owner: platform}\n"


def test_there_is_none_unless_it_is_declared(tmp_path: Path) -> None:
    assert "cd_maintenance" not in bag(tmp_path, SERVICES).dags


@pytest.mark.parametrize("declared", [MAINTENANCE, "maintenance: {}\n", "maintenance:\n"])
def test_it_is_one_task_about_all_services(tmp_path: Path, declared: str) -> None:
    found = bag(tmp_path, declared + SERVICES)
    assert found.import_errors == {}
    dag = found.dags["cd_maintenance"]
    (task,) = dag.tasks
    assert task.execution_timeout and task.retries == 2 and dag.max_active_runs == 1 and not dag.catchup
    assert task.owner == ("platform" if declared is MAINTENANCE else "airflow")
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
    load_dags("services.yaml", namespace)
    (collect,) = namespace["cd_maintenance"].tasks
    assert [one.name for one in collect.services] == ["hello", "shout"] and collect.whole_file


def test_it_knows_when_a_service_is_missing(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(MAINTENANCE + SERVICES + BROKEN)
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
    load_dags("services.yaml", namespace)
    (collect,) = namespace["cd_maintenance"].tasks
    assert not collect.whole_file


def test_its_task_starts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services.yaml").write_text(MAINTENANCE + SERVICES)
    for wanted in ("cd_maintenance", "hello_delivery"):
        monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", wanted)
        namespace: dict[str, Any] = {"__file__": str(tmp_path / "services.py")}
        load_dags("services.yaml", namespace)
        assert set(namespace) == {"__file__", wanted}


def test_a_mistake_in_it_is_named_with_its_line(tmp_path: Path) -> None:
    found = bag(tmp_path, "maintenance: {schedule: daily}\n" + SERVICES)
    (error,) = found.import_errors.values()
    assert "services.yaml:1" in error and "cron" in error
    assert "hello_delivery" in found.dags and "cd_maintenance" not in found.dags
