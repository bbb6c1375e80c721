"""How often a remote is asked."""

from __future__ import annotations

import pytest

from airflow_cd.triggers.git_heads import backoff


@pytest.mark.parametrize("failures", [1, 3, 10, 100_000])
def test_a_dead_remote_is_asked_less_and_less_often(failures: int) -> None:
    longest = min(30.0 * 2 ** min(failures, 10), 300.0)
    waits = [backoff(30.0, failures) for _ in range(200)]
    assert longest * 0.8 <= min(waits) < max(waits) <= longest


def test_a_rare_poll_stays_rare() -> None:
    assert backoff(3600.0, 0) >= 3600 * 0.95
