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


def test_a_change_told_twice_is_one() -> None:
    assert [change.generation for change in changes_of([extra(2), extra(2), extra(1)])] == [2, 1]


@pytest.mark.parametrize("forged", [None, {}, "text", {"from_trigger": True}, extra(1, kind="exploded")])
def test_what_is_no_change_is_left_out(forged: Any) -> None:
    assert [change.generation for change in changes_of([forged, extra(1)])] == [1]


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
