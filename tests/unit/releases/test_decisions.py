"""Decisions are kept in the artifact store the service is configured with, one for each run and task."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.approval import ApprovalOutcome, Decision
from airflow_cd.model.service import Service
from airflow_cd.releases.decisions import keep_decision, kept_decision
from airflow_cd.stores.registry import open_store

ASKED = ("production", "production.approve")
APPROVED = Decision(outcome=ApprovalOutcome.APPROVED, digest="sha256:" + "a" * 64, by="bob")


@pytest.fixture
def service(tmp_path: Path) -> Service:
    local = {"command": ["true"], "port": 1}
    return Service.model_validate(
        {
            "name": "hello",
            "pipeline": "delivery",
            "artifacts": (tmp_path / "store").as_uri(),
            "source": {"repository": "https://git.example/hello.git"},
            "environments": [{"name": "production", "target": {"local": local}}],
        }
    )


def run(run_id: str = "manual__1") -> dict[str, Any]:
    when = datetime(2026, 1, 2, tzinfo=timezone.utc)
    return {"dag_run": SimpleNamespace(dag_id="hello_delivery", run_id=run_id, run_after=when)}


def test_a_decision_is_that_of_its_run_and_task_alone(service: Service) -> None:
    assert kept_decision(run(), service, *ASKED) is None
    keep_decision(run(), service, *ASKED, APPROVED)
    assert kept_decision(run(), service, *ASKED) == APPROVED
    assert kept_decision(run("manual__2"), service, *ASKED) is None
    assert kept_decision(run(), service, "staging", "staging.approve") is None


def test_asking_again_withdraws_it(service: Service) -> None:
    keep_decision(run(), service, *ASKED, None)
    keep_decision(run(), service, *ASKED, APPROVED)
    keep_decision(run(), service, *ASKED, None)
    assert kept_decision(run(), service, *ASKED) is None


def test_what_was_put_there_for_another_run_or_is_no_decision_is_refused(service: Service) -> None:
    keep_decision(run(), service, *ASKED, APPROVED)
    (file,) = (Path(service.artifacts.removeprefix("file://")) / "refs").rglob("*.json")  # type: ignore[union-attr]
    name = str(file.relative_to(file.parents[3]))[: -len(".json")]
    store = open_store(str(service.artifacts))
    kept = store.get_ref(name)
    assert kept is not None
    store.put_ref(name, {**kept, "run_id": "manual__2"})
    with pytest.raises(ApprovalError, match="of another run"):
        kept_decision(run(), service, *ASKED)
    store.put_ref(name, {**kept, "decision": {"outcome": "approved"}})
    with pytest.raises(ApprovalError, match="no decision"):
        kept_decision(run(), service, *ASKED)
