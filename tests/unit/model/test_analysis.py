"""What values say, what measurements come to, and that a wrong analysis never gets as far as being one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_cd.model.analysis import Analysis, Judgement, Measurement, Outcome
from airflow_cd.model.rollout import Observation, Phase, Plan
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.model.strategy import CanaryStep

BEGAN = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
VALUES: dict[Outcome, float | None] = {"success": 0.01, "failure": 0.2, "inconclusive": 0.07, "error": None}
OUTCOMES = tuple(VALUES)


def analysis(**settings: Any) -> Analysis:
    given = {"http": {"url": "http://metrics.example/"}, "success": "< 0.05", "failure": ">= 0.1"}
    return Analysis.model_validate({**given, **settings})


def taken(outcomes: Sequence[Outcome], every: int = 30) -> list[Measurement]:
    return [
        Measurement(
            analysis="errors",
            step=0,
            at=BEGAN + timedelta(seconds=every * number),
            value=VALUES[outcome],
            outcome=outcome,
            detail="refused" if outcome == "error" else "",
        )
        for number, outcome in enumerate(outcomes)
    ]


def judged(settings: dict[str, Any], *outcomes: Outcome) -> Judgement | None:
    return analysis(**settings).judge(taken(outcomes))


def outcome(settings: dict[str, Any], *outcomes: Outcome) -> Outcome | None:
    found = judged(settings, *outcomes)
    return found and found.outcome


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"success": "< 5", "failure": None}, {4: "success", 5: "failure"}),
        ({"success": None, "failure": ">= 5"}, {4: "success", 5: "failure"}),
        ({"success": "< 5", "failure": ">= 9"}, {4: "success", 7: "inconclusive", 9: "failure"}),
        ({"success": "> 1", "failure": "> 5"}, {3: "success", 6: "failure", 0: "inconclusive"}),
    ],
)
def test_conditions_say_what_a_value_means(conditions: Any, said: dict[float, Outcome]) -> None:
    made = analysis(**conditions)
    assert {value: made.assess(value).outcome for value in said} == said


def test_the_value_and_the_condition_are_told() -> None:
    assert analysis().assess(0.125).reason == "0.125 is >= 0.1"
    assert analysis(failure=None).assess(0.125).reason == "0.125 is not < 0.05"
    assert analysis().assess(0.0625).reason == "0.0625 is neither < 0.05 nor >= 0.1"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", OUTCOMES)
def test_no_data_is_what_its_policy_says(value: float | None, policy: Outcome) -> None:
    # Not what the condition says: every comparison with NaN is false, and `not >= 0.1` would be a success.
    assert analysis(success=None, no_data=policy).assess(value).outcome == policy


def test_no_data_asks_a_person_unless_told_otherwise() -> None:
    assert analysis().assess(None).outcome == "inconclusive"


def test_one_failure_is_enough_at_once_when_none_is_tolerated() -> None:
    found = judged({}, "success", "failure")
    assert found == Judgement(
        "failure", "1 of 2 measurements failed (none tolerated); the last one: 0.2 is >= 0.1"
    )


def test_failures_have_to_exceed_the_limit() -> None:
    settings = {"failure_limit": 2}
    assert outcome(settings, "failure", "failure") is None
    assert outcome(settings, "failure", "failure", "success", "failure") == "failure"
    assert outcome(settings, "failure", "failure", "success", "success", "success") == "success"


def test_errors_count_only_in_a_row_and_are_no_measurements() -> None:
    assert outcome({}, *["error"] * 4) is None  # type: ignore[arg-type]
    assert outcome({}, *["error"] * 5) == "error"  # type: ignore[arg-type]
    assert outcome({}, *["error"] * 4, "success", *["error"] * 4, "success") is None  # type: ignore[arg-type]
    assert outcome({"count": 2}, "error", "success", "error", "success") == "success"


def test_an_error_is_not_taken_for_a_failure() -> None:
    found = judged({"error_limit": 1, "count": 2}, "error", "error")
    assert found == Judgement(
        "error", "2 measurements in a row could not be taken (1 tolerated); the last one: refused"
    )


def test_what_is_unclear_is_told_as_soon_as_it_exceeds_its_limit() -> None:
    assert outcome({}, "success", "inconclusive") == "inconclusive"
    settings = {"inconclusive_limit": 1}
    assert outcome(settings, "inconclusive", "success") is None
    assert outcome(settings, "inconclusive", "success", "inconclusive") == "inconclusive"


def test_the_reason_is_what_was_seen() -> None:
    missing = taken(["inconclusive"])[0].model_copy(update={"value": None, "detail": "no data (no series)"})
    found = analysis().judge([missing])
    assert found is not None and found.reason.endswith("the last one: no data (no series)")


def test_success_tells_how_many_were_good() -> None:
    found = judged({"count": 3, "failure_limit": 1}, "success", "failure", "success")
    assert found == Judgement("success", "2 of 3 measurements are good; the last one: 0.01 is < 0.05")


LIMITS = st.tuples(st.integers(1, 8), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)).filter(
    lambda found: found[1] + found[2] < found[0]
)


@given(LIMITS, st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_limits_hold_whatever_the_order(limits: tuple[int, ...], outcomes: list[Outcome]) -> None:
    count, failures, unclear, errors = limits
    made = analysis(count=count, failure_limit=failures, inconclusive_limit=unclear, error_limit=errors)
    found = made.judge(taken(outcomes))
    decisive = next(
        (n for n in range(len(outcomes) + 1) if made.judge(taken(outcomes[:n])) is not None), len(outcomes)
    )
    seen = {one: outcomes[:decisive].count(one) for one in OUTCOMES}
    measured = decisive - seen["error"]
    # Nothing that came after the verdict changes it.
    assert found == made.judge(taken(outcomes[:decisive]))
    if found is None:
        assert seen["failure"] <= failures and seen["inconclusive"] <= unclear and measured < count
        return
    assert (seen["failure"] > failures) == (found.outcome == "failure")
    assert (seen["inconclusive"] > unclear) == (found.outcome == "inconclusive")
    if found.outcome == "success":
        assert measured == count and seen["success"] > 0
    if found.outcome == "error":
        assert outcomes[decisive - errors - 1 : decisive] == ["error"] * (errors + 1)


def test_the_first_measurement_waits_and_the_others_follow_the_start_of_the_one_before() -> None:
    made = analysis(initial_delay="10s", interval="20s")
    assert made.due_at(BEGAN, []) == BEGAN + timedelta(seconds=10)
    assert made.due_at(BEGAN, taken(["success", "success"])) == BEGAN + timedelta(seconds=50)


def test_nothing_is_measured_after_the_verdict() -> None:
    made = analysis(count=2)
    assert made.due_at(BEGAN, taken(["success", "success"])) > BEGAN + timedelta(days=1000)


def test_an_analysis_that_is_done_waits_for_the_others_of_its_step() -> None:
    plan = Plan(
        [CanaryStep(analysis=("short", "long"))],
        {"short": analysis(count=1, interval="1s"), "long": analysis(count=2, interval="40s")},
    )
    progress = plan.begin(BEGAN)
    first = [
        one.model_copy(update={"analysis": name}) for name in ("short", "long") for one in taken(["success"])
    ]
    progress = plan.advance(progress, Observation(ready=True), BEGAN, first)
    assert progress.phase is Phase.ANALYSING
    assert plan.due(progress, BEGAN + timedelta(seconds=39)) == []
    assert plan.due(progress, BEGAN + timedelta(seconds=40)) == ["long"]
    assert 0 < plan.seconds_to_next(progress, BEGAN) <= 40


def test_an_analysis_comes_back_from_a_record_as_it_was() -> None:
    made = analysis(http={"url": "/rate", "json": "$.a", "conn_id": "metrics"}, initial_delay="90s")
    assert Analysis.model_validate_json(made.model_dump_json()) == made
    assert "$.a" in made.model_dump_json()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prometheus": {"url": "http://p/", "query": "up"}}, "exactly one of `http` and `prometheus`"),
        ({"http": None}, "exactly one of `http` and `prometheus`"),
        ({"success": None, "failure": None}, "what it means"),
        ({"success": "0.05 <"}, "where a comparison is expected"),
        ({"success": 5}, "in quotes"),
        ({"count": 2, "failure_limit": 2}, "without a single good value"),
        ({"count": 3, "failure_limit": 1, "inconclusive_limit": 2}, "without a single good value"),
        ({"interval": "0s"}, "greater than or equal"),
        ({"no_data": "ignore"}, "'success', 'failure', 'inconclusive' or 'error'"),
        ({"http": {"url": "http://m/${servce}"}}, "Did you mean 'service'?"),
        ({"http": {"url": "metrics.example/rate"}}, "is not an address"),
        ({"http": {"url": "file:///etc/passwd"}}, "is not an address"),
        ({"http": {"url": "//metrics.example/", "conn_id": "a"}}, "is not an address"),
        ({"http": {"url": "http://bob:secret@m/"}}, "put them into an Airflow connection"),
        *(
            ({"http": {"url": f"http://m/a{sign}b"}}, "it has a space or a '#' in it")
            for sign in (" ", "\t", "\r\n", "\x00", "\x1f", "\x7f", "\u00a0", "#")
        ),
        ({"success": "=> 5"}, "these are known: < <= > >= == !="),
        ({"http": {"url": "/rate"}}, "no `conn_id` that tells the host"),
        ({"http": {"url": "http://m/", "json": "$.a["}}, "is not a JSONPath"),
        ({"http": {"url": "http://m/", "json": "rate"}}, "is not a JSONPath"),
        ({"http": {"url": "http://m/", "headers": {"Authorization": "Bearer a"}}}, "which is a secret"),
        ({"http": {"url": "http://m/", "headers": {"X-A": "${service}"}}}, "has a placeholder"),
        ({"http": {"url": "http://m/", "headers": {"X-A": "a\r\nX-B: b"}}}, "should match pattern"),
        ({"http": None, "prometheus": {"query": "up"}}, "where Prometheus is"),
        ({"http": None, "prometheus": {"query": "sum(up", "url": "http://p"}}, "is not closed"),
    ],
)
def test_what_could_never_be_measured_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        analysis(**settings)
    assert message in str(refused.value)


@pytest.mark.parametrize("url", ["http://m/rate", "https://m:9090/rate?service=${service}"])
def test_an_address_is_kept_as_it_is_written(url: str) -> None:
    query = analysis(http={"url": url}).query
    assert query.url == url


def test_a_services_file_names_line_value_and_remedy(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(
        """services:
  - name: hello
    pipeline: deployment
    source: {repository: /srv/git/hello.git}
    environments: [{name: production, target: {local: {command: [app], port: 9001}}}]
    analyses:
      error-rate:
        prometheus:
          url: http://prometheus:9090
          query: sum(rate(errors{app="${servce}"}[1m]))
        success: < 5%
      latency:
        http: {url: "http://m/", jsn: $.p99}
        succes: < 5
"""
    )
    errors = {error.line: str(error) for error in load_services(file).errors}
    assert "Did you mean 'service'?" in errors[10]
    assert "'analyses.error-rate.success' has '5%' where a number is expected" in errors[11]
    assert "unknown key 'jsn'" in errors[13] and "Did you mean 'json'?" in errors[13]
    assert "unknown key 'succes'. Did you mean 'success'?" in errors[14]
