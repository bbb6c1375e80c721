"""The four keys, reckoned from changes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_cd.model.history import Change, measure

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def release(name: str) -> dict[str, Any]:
    return {"version": name, "digest": "sha256:" + name * 64, "revision": name * 40, "subject": "x"}


def change(kind: str, to: str, replaced: str | None, at: float, lead: float = 60, **more: Any) -> Change:
    values = {
        "service": "hello",
        "environment": "production",
        "kind": kind,
        "generation": 1,
        "release": release(to),
        "replaced": release(replaced) if replaced else None,
        "actor": "a/b",
        "at": START + at * HOUR,
        "lead_time": lead if kind == "deployed" else None,
    }
    return Change.model_validate({**values, **more})


def test_a_period_without_deployments_has_no_rates() -> None:
    none = measure([], START, START + 24 * HOUR)
    assert (none.deployments, none.deployment_frequency) == (0, 0)
    assert (none.lead_time, none.change_failure_rate, none.time_to_restore) == (None, None, None)


def test_a_rollback_is_no_deployment_but_says_that_one_failed() -> None:
    changes = [
        change("deployed", "1", None, 1, lead=100),
        change("deployed", "2", "1", 2, lead=300),
        change("rolled back", "1", "2", 2.5),
        change("deployed", "3", "1", 5, lead=200),
    ]
    found = measure(reversed(changes), START, START + 48 * HOUR)
    assert (found.deployments, found.failed, found.deployment_frequency) == (3, 1, 1.5)
    assert found.lead_time == 200
    assert found.change_failure_rate == pytest.approx(1 / 3)
    assert found.time_to_restore == 1800


def test_the_period_is_that_of_the_deployment() -> None:
    changes = [
        change("deployed", "1", None, 1),
        change("deployed", "2", "1", 23),
        change("deployed", "3", "2", 24),
        # Undone after the period, in two steps: each undoes the deployment of what it replaced.
        change("rolled back", "2", "3", 30),
        change("rolled back", "1", "2", 31),
    ]
    found = measure(changes, START + 2 * HOUR, START + 24 * HOUR)
    assert (found.deployments, found.failed, found.time_to_restore) == (1, 1, 8 * 3600)


def test_the_same_release_deployed_again_fails_by_its_own_rollback() -> None:
    changes = [
        change("deployed", "2", "1", 1),
        change("rolled back", "1", "2", 2),
        change("deployed", "2", "1", 3),
        change("rolled back", "1", "2", 7),
    ]
    found = measure(changes, START, START + 24 * HOUR)
    assert (found.failed, found.change_failure_rate, found.time_to_restore) == (2, 1.0, 2.5 * 3600)


def test_services_do_not_undo_each_others_releases() -> None:
    changes = [
        change("deployed", "2", "1", 1),
        change("rolled back", "1", "2", 2, service="other"),
    ]
    assert measure(changes, START, START + 24 * HOUR).failed == 0


@given(st.lists(st.tuples(st.sampled_from("123"), st.booleans()), max_size=30))
def test_no_more_fail_than_are_deployed_and_each_service_adds_up(steps: list[tuple[str, bool]]) -> None:
    changes, running = [], None
    for at, (to, back) in enumerate(steps):
        kind = "rolled back" if back and running else "deployed"
        changes.append(change(kind, to, running, at, service="ab"[at % 2]))
        running = to
    until = START + 100 * HOUR
    overall = measure(changes, START, until)
    parts = [measure([one for one in changes if one.service == name], START, until) for name in "ab"]
    assert overall.deployments == sum(part.deployments for part in parts)
    assert overall.failed == sum(part.failed for part in parts) <= overall.deployments
    assert overall.deployments + sum(one.kind == "rolled back" for one in changes) == len(changes)


def test_a_rollback_that_replaced_nothing_undoes_no_deployment() -> None:
    changes = [change("deployed", "1", None, 1), change("rolled back", "1", None, 2)]
    found = measure(changes, START, START + 24 * HOUR)
    assert (found.deployments, found.failed, found.time_to_restore) == (1, 0, None)
