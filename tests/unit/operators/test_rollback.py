"""A rollback works from the target alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.local_run import local_run

from airflow_cd.operators.rollback import RollbackOperator


def test_a_rollback_does_not_need_the_artifact_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who can delete or change a manifest must not keep a bad release in production."""
    with local_run(tmp_path, monkeypatch) as run:
        service = run.service()
        for text in ("one", "two"):
            run.package(service, run.commit(text))
            run.deploy(service)
        shutil.rmtree(run.store.root)
        context = run.context
        context["ti"].get_task_states = lambda **_: {run.run_id: {"health": "failed"}}
        rollback = RollbackOperator(
            task_id="rollback", service=service, environment="production", health_task_id="health"
        )
        rollback.execute(context)
        assert run.served() == "one"


def test_an_xcom_keeps_no_bad_release_in_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users can write XComs; the target's record says what this run deployed."""
    with local_run(tmp_path, monkeypatch) as run:
        service = run.service()
        for text in ("one", "two"):
            run.package(service, run.commit(text))
            run.deploy(service)
        run.xcoms["package"] = {**run.xcoms["package"], "digest": "sha256:" + "e" * 64}
        context = run.context
        context["ti"].get_task_states = lambda **_: {run.run_id: {"health": "failed"}}
        rollback = RollbackOperator(
            task_id="rollback", service=service, environment="production", health_task_id="health"
        )
        rollback.execute(context)
        assert run.served() == "one"
