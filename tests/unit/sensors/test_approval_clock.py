"""How much time is left for a decision, whatever the clock did since it was asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskAwaitingInput
from tests.unit.model.test_approval_request import release

from airflow_cd.model.service import Service
from airflow_cd.sensors import approval
from airflow_cd.sensors.approval import ApprovalSensor, _Candidate
from airflow_cd.targets.record import Record

SERVICE = Service.model_validate(
    {
        "name": "hello",
        "pipeline": "delivery",
        "source": {"repository": "/srv/hello.git"},
        "environments": [
            {
                "name": "production",
                "target": {"local": {"command": ["app"], "port": 1}},
                "approval": {"expires_after": "2h"},
            }
        ],
    }
)


@pytest.mark.parametrize(
    ("passed", "left"),
    [(0, 120), (30, 90), (-60, 120), (-24 * 60, 120), (180, -60)],
    ids=["now", "later", "set-back-an-hour", "set-back-a-day", "over"],
)
def test_a_clock_that_was_set_back_neither_ends_nor_stretches_the_time(
    monkeypatch: pytest.MonkeyPatch, passed: float, left: float
) -> None:
    """Both in minutes."""
    # The question goes to the API server, which this test does without.
    monkeypatch.setattr(approval, "put_question", lambda *_, about, **__: about)
    monkeypatch.setattr(approval, "keep_decision", lambda *_: None)
    sensor = ApprovalSensor(task_id="approve", service=SERVICE, environment="production")
    asked_at = datetime.now(timezone.utc) - timedelta(minutes=passed)
    context: Any = {"ti": SimpleNamespace(id="1", dag_id="d", run_id="r", task_id="approve")}
    candidate = _Candidate(release(), "sha256:" + "b" * 64, Record())
    with pytest.raises(TaskAwaitingInput) as parked:
        sensor._ask(context, candidate, asked_at=asked_at)
    assert parked.value.timeout is not None
    assert parked.value.timeout.total_seconds() / 60 == pytest.approx(left, abs=1)
