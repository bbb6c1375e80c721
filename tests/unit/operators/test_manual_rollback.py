"""Which events a rollback believes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from tests.unit.operators.test_revision import SERVICE

from airflow_cd.operators.manual_rollback import ManualRollbackOperator

GOOD = {"environment": "production", "generation": 1, "digest": "sha256:" + "a" * 64, "reason": "bad"}


@pytest.mark.parametrize(
    "extra",
    [
        None,
        {},
        {"payload": None},
        {"payload": "production"},
        {"payload": {"environment": "production"}},
        {"payload": {**GOOD, "digest": "sha256:../../etc/passwd"}},
        {"payload": {**GOOD, "generation": "$(id)"}},
        {"payload": {**GOOD, "reason": {"a": 1}}},
        {"payload": {**GOOD, "environment": "staging"}},
    ],
)
def test_an_event_that_is_no_alarm_rolls_nothing_back(extra: Any) -> None:
    """The task must neither crash nor be retried."""
    refuse(extra and {"from_trigger": True, **extra})


@pytest.mark.parametrize(
    "origin", [{}, {"from_rest_api": True, "from_trigger": True}], ids=["unmarked", "rest"]
)
def test_a_forged_alarm_rolls_nothing_back(origin: dict[str, bool]) -> None:
    """The payload is that of a true alarm; only a trigger's event counts."""
    refuse({"payload": GOOD, **origin})


def refuse(extra: Any) -> None:
    operator = ManualRollbackOperator(task_id="rollback", service=SERVICE, environment="production")
    event = SimpleNamespace(timestamp=1, extra=extra)
    context: Any = {
        "triggering_asset_events": {"alarms": [event]},
        "dag_run": SimpleNamespace(run_type="asset_triggered"),
        "params": {},
    }
    with pytest.raises(AirflowSkipException, match="no alarm of this run is about production"):
        operator.execute(context)
