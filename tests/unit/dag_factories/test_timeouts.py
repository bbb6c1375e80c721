"""How long tasks may take, from what their commands may take."""

from __future__ import annotations

from datetime import timedelta

from airflow_cd.dag_factories.pipeline import delivery_dag
from airflow_cd.model.service import Service


def test_a_task_ends_an_hour_after_its_commands_must_have() -> None:
    service = Service.model_validate(
        {
            "name": "hello",
            "pipeline": "delivery",
            "source": {"repository": "/srv/hello.git"},
            "build": {"commands": [["make"]], "timeout": "2h"},
            "test": {"unit": {"commands": [["a"]], "timeout": "10m"}, "load": {"commands": [["b"]]}},
            "environments": [{"name": "production", "target": {"local": {"command": ["app"], "port": 8999}}}],
        }
    )
    dag = delivery_dag(service)
    allowed = {task_id: dag.get_task(task_id).execution_timeout for task_id in dag.task_ids}
    assert allowed["build"] == timedelta(hours=3)
    assert allowed["test.unit"] == timedelta(hours=1, minutes=10)
    assert allowed["test.load"] == timedelta(hours=1, minutes=30)
    # Waits have limits of their own, and a person may take any time.
    assert allowed["production.approve"] is None and allowed["production.health"] is None
