"""Entries of the history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_cd.model.base import format_age
from airflow_cd.model.history import changes_of


def extra(generation: int, **changes: Any) -> dict[str, Any]:
    name = {"version": "1", "digest": "sha256:" + "1" * 64, "revision": "a" * 40, "subject": "fix"}
    return {
        **{"service": "hello", "environment": "production", "kind": "deployed", "generation": generation},
        **{"release": name, "actor": "hello_delivery/run", "at": "2026-01-01T00:00:00Z", **changes},
    }


def event(generation: int, dag_id: str | None = "hello_delivery", **changes: Any) -> dict[str, Any]:
    return {
        "source_dag_id": dag_id,
        "source_run_id": "run",
        "extra": extra(generation, **{"actor": f"{dag_id}/run", **changes}),
    }


def test_a_change_told_twice_is_one() -> None:
    assert [change.generation for change in changes_of([event(2), event(2), event(1)])] == [2, 1]


@pytest.mark.parametrize("dag_id", ["hello_delivery", "hello_deployment", "hello_rollback", "train_nightly"])
def test_the_dags_that_change_an_environment_have_a_say(dag_id: str) -> None:
    assert len(changes_of([event(1, dag_id)])) == 1


@pytest.mark.parametrize(
    "forged",
    [
        event(1, "hello_evil", reason="forged"),
        event(1, "elsewhere_delivery", reason="forged"),
        event(1, "evil", actor="hello_delivery/run", reason="forged"),
        event(1, actor="hello_delivery/another", reason="forged"),
        event(1, None, actor="None/run", reason="forged"),
        {"extra": extra(1, reason="forged")},
    ],
)
def test_an_event_that_is_emitted_in_advance_does_not_hide_the_true_one(forged: dict[str, Any]) -> None:
    (change,) = changes_of([forged, event(1)])
    assert change.reason is None


@pytest.mark.parametrize("forged", [None, {}, "text", {"from_trigger": True}, extra(1, kind="exploded")])
def test_what_is_no_change_is_left_out(forged: Any) -> None:
    assert [change.generation for change in changes_of([{**event(1), "extra": forged}, event(1)])] == [1]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (-5, "0s"),
        (59.9, "59s"),
        (61, "1m 1s"),
        (3600, "1h"),
        (86_400 + 60, "1d"),
        (93_600, "1d 2h"),
    ],
)
def test_ages(seconds: float, shown: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == shown
