"""How samples become a verdict."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_cd.model.health import HealthCheck, Judge, Sample, Verdict

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def judge(samples: str, every: float = 1.0, **settings: object) -> Verdict | None:
    """Judge ``+`` (good) and ``-`` (bad) samples."""
    one = Judge(HealthCheck.model_validate({"http": "/", **settings}))
    for number, mark in enumerate(samples):
        one.add(Sample(at=AT, ok=mark == "+", seconds=0.01, detail=f"sample {number}"), number * every)
    return one.verdict


@pytest.mark.parametrize(
    ("samples", "healthy"),
    [
        ("++", None),
        ("+++", True),
        ("-+++", True),
        ("++-++", None),
        ("++-+++", True),
        ("---", None),  # as many as are tolerated
        ("----", False),  # one more
        ("-+-+-+-", False),
    ],
)
def test_three_good_in_a_row_or_more_than_three_bad(samples: str, healthy: bool | None) -> None:
    verdict = judge(samples)
    assert (verdict.healthy if verdict else None) is healthy


def test_old_failures_are_forgotten() -> None:
    assert judge("-" * 10, every=30, window="60s", timeout="1h") is None
    verdict = judge("-" * 10, every=10, window="60s", timeout="1h")
    assert verdict is not None and "4 bad samples within 1m, 3 are tolerated" in verdict.reason


def test_time_runs_out() -> None:
    verdict = judge("+-" * 20, every=10, timeout="100s", failures=99)
    assert verdict is not None and not verdict.healthy
    assert "not healthy within 100s" in verdict.reason
    assert "sample" in verdict.reason


def test_no_failure_at_all_may_be_tolerated() -> None:
    verdict = judge("++-", failures=0)
    assert verdict is not None and not verdict.healthy


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(0, 5))
def test_a_verdict_is_final_and_never_healthy_on_a_bad_sample(
    samples: str, healthy_after: int, failures: int
) -> None:
    settings: Any = {"healthy_after": healthy_after, "failures": failures, "timeout": "1h"}
    first = next((n for n in range(len(samples) + 1) if judge(samples[:n], **settings) is not None), None)
    if first is None:
        assert "+" * healthy_after not in samples
        return
    verdict = judge(samples[:first], **settings)
    assert judge(samples, **settings) == verdict
    assert verdict is not None
    assert verdict.healthy is (samples[first - 1] == "+")
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_a_failure_is_forgotten_exactly_when_it_is_as_old_as_the_window() -> None:
    # At 60 s, the failure of second 0 is 60 s old: three failures are left, as many as are tolerated.
    assert judge("----", every=20, window="60s", timeout="1h") is None
    assert judge("----", every=20, window="61s", timeout="1h") is not None


def test_the_time_is_over_exactly_at_the_timeout() -> None:
    assert judge("-", timeout="10s") is None
    one = Judge(HealthCheck.model_validate({"http": "/", "timeout": "10s"}))
    assert one.expire(9.9) is None
    verdict = one.expire(10)
    assert verdict is not None
    counted = "not healthy within 10s (0 good and 0 bad samples)"
    assert verdict.reason == f"{counted}; the last that was not good: none"


def test_the_reason_counts_all_samples_and_quotes_the_last_bad_one() -> None:
    verdict = judge("++--+-++", every=2, timeout="14s", failures=9)
    assert verdict is not None
    counted = "not healthy within 14s (5 good and 3 bad samples)"
    assert verdict.reason == f"{counted}; the last that was not good: sample 5"
    assert (verdict.good, verdict.bad) == (5, 3)


def test_a_verdict_keeps_the_last_twenty_samples() -> None:
    verdict = judge("-+" * 30, timeout="59s", failures=99)
    assert verdict is not None
    assert [sample.detail for sample in verdict.samples] == [f"sample {n}" for n in range(40, 60)]
