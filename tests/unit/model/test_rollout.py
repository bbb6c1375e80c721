from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_cd.model.analysis import Analysis, Measurement, Outcome
from airflow_cd.model.rollout import LOST_AFTER, Observation, Phase, Plan, Progress, RolloutAnswer
from airflow_cd.model.strategy import CanaryStep

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
READY, UNREADY = Observation(ready=True), Observation(ready=False, restored=False)
ERRORS = Analysis.model_validate(
    {"http": {"url": "http://metrics.example/"}, "success": "< 0.05", "failure": ">= 0.1", "count": 2}
)


def plan(*steps: dict[str, Any]) -> Plan:
    return Plan(
        [CanaryStep.model_validate(step) for step in steps], {"errors": ERRORS}, timedelta(minutes=10)
    )


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def measured(outcome: Outcome, seconds: float, step: int = 1) -> Measurement:
    values: dict[Outcome, float | None] = {
        "success": 0.01,
        "failure": 0.5,
        "inconclusive": 0.07,
        "error": None,
    }
    return Measurement(
        analysis="errors", step=step, at=after(seconds), value=values[outcome], outcome=outcome, detail=""
    )


def at(which: Plan, phase: Phase) -> Progress:
    """Return the progress of a rollout whose every step goes well, when it comes to a phase."""
    progress, now = which.begin(NOW), NOW
    while progress.phase is not phase:
        now += timedelta(seconds=30)
        measurements = [measured("success", (now - NOW).total_seconds(), progress.step)]
        answer = RolloutAnswer(promote=True, by="ann")
        progress = which.advance(progress, READY, now, measurements, answer)
        assert not progress.over or progress.phase is phase
    return progress.model_copy(update={"since": NOW, "moved_at": NOW, "measurements": ()})


def test_a_rolling_release_has_nothing_before_it_gets_everything() -> None:
    progress = Plan().begin(NOW)
    assert (progress.phase, progress.step, progress.weight) == (Phase.PROMOTING, 0, 100)
    assert Plan().advance(progress, READY, NOW).phase is Phase.PROMOTED


def test_steps_are_gone_through_one_by_one() -> None:
    which = plan({"weight": 10}, {"pause": "1m"}, {"analysis": "errors"}, {"pause": {}}, {"weight": 60})
    seen, progress, now = [], which.begin(NOW), NOW
    while not progress.over:
        seen.append((progress.phase.value, progress.step, progress.weight))
        now += timedelta(seconds=30)
        measurement = measured("success", (now - NOW).total_seconds(), progress.step)
        progress = which.advance(progress, READY, now, [measurement], RolloutAnswer(promote=True, by="ann"))
    assert list(dict.fromkeys(seen)) == [
        ("setting", 0, 10),
        ("paused", 1, 10),
        ("analysing", 2, 10),
        ("asking", 3, 10),
        ("setting", 4, 60),
        ("promoting", 5, 100),
    ]
    assert progress.phase is Phase.PROMOTED


def test_a_share_is_reached_only_when_everything_is_ready() -> None:
    which = plan({"weight": 10})
    progress = which.begin(NOW)
    assert which.advance(progress, UNREADY, after(60)) == progress
    assert which.advance(progress, READY, after(60)).phase is Phase.PROMOTING


def test_nothing_moving_for_the_deadline_gives_everything_back() -> None:
    which = plan({"weight": 10})
    progress = which.advance(which.begin(NOW), Observation(ready=False, count="1 of 3 ready"), after(590))
    assert progress.phase is Phase.SHIFTING_TRAFFIC
    stuck = Observation(ready=False, count="1 of 3 ready")
    assert which.advance(progress, stuck, after(1189)).phase is Phase.SHIFTING_TRAFFIC
    given_back = which.advance(progress, stuck, after(1190))
    assert given_back.phase is Phase.ABORTING and given_back.weight == 0
    assert given_back.reason == "nothing moved for 10m: 1 of 3 ready"


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.AWAITING_DECISION, Phase.ANALYSING])
def test_the_deadline_does_not_run_while_nothing_is_to_move(phase: Phase) -> None:
    which = plan({"weight": 10}, {"pause": "30d"} if phase is Phase.PAUSED else {"pause": {}}, {"weight": 20})
    if phase is Phase.ANALYSING:
        which = plan({"weight": 10}, {"analysis": "errors"}, {"weight": 20})
    progress = which.advance(which.begin(NOW), READY, NOW)
    assert progress.phase is phase
    late = after(20 * 86400)
    assert which.advance(progress, READY, late).phase is phase
    # It begins again with what moves next, however long that took.
    moving = progress.model_copy(update={"phase": Phase.SHIFTING_TRAFFIC, "step": 2, "moved_at": late})
    assert which.advance(moving, UNREADY, late + timedelta(minutes=9)).phase is Phase.SHIFTING_TRAFFIC


@pytest.mark.parametrize(
    "phase", [Phase.SHIFTING_TRAFFIC, Phase.PAUSED, Phase.AWAITING_DECISION, Phase.ANALYSING, Phase.PROMOTING]
)
def test_what_certainly_will_not_become_ready_is_not_waited_for(phase: Phase) -> None:
    which = plan({"weight": 10}, {"pause": "1m"}, {"pause": {}}, {"analysis": "errors"})
    seen = Observation(ready=False, broken="its image does not exist")
    given_back = which.advance(at(which, phase), seen, after(1))
    assert (given_back.phase, given_back.reason) == (Phase.ABORTING, "its image does not exist")


@pytest.mark.parametrize("phase", [Phase.PAUSED, Phase.AWAITING_DECISION, Phase.ANALYSING])
def test_a_release_that_is_not_ready_any_more_is_given_a_moment_only(phase: Phase) -> None:
    which = plan({"weight": 10}, {"pause": "1m"}, {"pause": {}}, {"analysis": "errors"})
    lost = which.advance(at(which, phase), UNREADY, after(1))
    assert lost.phase is phase
    assert which.advance(lost, READY, after(5)).unready_since is None
    long = after(1) + LOST_AFTER
    assert which.advance(lost, UNREADY, long).phase is Phase.ABORTING
    assert which.advance(lost, UNREADY, long - timedelta(seconds=1)).phase is phase


def test_nobody_goes_on_with_a_release_that_is_not_ready() -> None:
    which = plan({"weight": 10}, {"pause": "1m"}, {"pause": {}})
    assert which.advance(at(which, Phase.PAUSED), UNREADY, after(60)).phase is Phase.PAUSED
    answer = RolloutAnswer(promote=True, by="ann")
    assert (
        which.advance(at(which, Phase.AWAITING_DECISION), UNREADY, after(1), answer=answer).phase
        is Phase.AWAITING_DECISION
    )


@pytest.mark.parametrize("outcome", ["failure", "error"])
def test_a_failed_analysis_gives_everything_back(outcome: Outcome) -> None:
    which = plan({"weight": 10}, {"analysis": "errors"})
    progress = at(which, Phase.ANALYSING)
    bad = [measured(outcome, second) for second in range(ERRORS.error_limit + 1)]
    given_back = which.advance(progress, READY, after(9), bad)
    assert given_back.phase is Phase.ABORTING
    assert given_back.reason is not None and given_back.reason.startswith("analysis errors: ")
    assert given_back.measurements == tuple(bad), "they are kept, to be shown"


def test_an_inconclusive_analysis_asks_somebody_however_long_that_takes() -> None:
    which = plan({"weight": 10}, {"analysis": "errors"}, {"weight": 20})
    progress = which.advance(
        at(which, Phase.ANALYSING), READY, after(9), [measured("inconclusive", 1), measured("success", 2)]
    )
    assert progress.phase is Phase.AWAITING_DECISION
    for days in (1, 100):
        later = after(days * 86400)
        assert (
            which.advance(progress, READY, later, [measured("success", 3)]).phase is Phase.AWAITING_DECISION
        )
    assert (
        which.advance(progress, READY, after(10), answer=RolloutAnswer(promote=True, by="ann")).weight == 20
    )
    refused = which.advance(
        progress, READY, after(10), answer=RolloutAnswer(promote=False, by="bob", reason="odd")
    )
    assert (refused.phase, refused.reason) == (Phase.ABORTING, "aborted by bob: odd")


def test_a_measurement_that_is_told_twice_counts_once() -> None:
    which = plan({"weight": 10}, {"analysis": "errors"})
    once = which.advance(at(which, Phase.ANALYSING), READY, after(2), [measured("success", 1)])
    twice = which.advance(once, READY, after(3), [measured("success", 1)])
    assert twice.phase is Phase.ANALYSING and len(twice.measurements) == 1
    assert which.advance(twice, READY, after(4), [measured("success", 3)]).phase is Phase.PROMOTING


def test_measurements_of_another_step_say_nothing_about_this_one() -> None:
    which = plan({"weight": 10}, {"analysis": "errors"}, {"weight": 20}, {"analysis": "errors"})
    progress = at(which, Phase.ANALYSING)
    late = [measured("failure", 1, step=3), measured("failure", 2, step=0)]
    assert which.advance(progress, READY, after(3), late).measurements == ()


def test_as_many_measurements_are_kept_as_an_analysis_needs() -> None:
    many = ERRORS.model_copy(update={"count": 400})
    which = Plan([CanaryStep(analysis=("errors",))], {"errors": many})
    progress = which.begin(NOW)
    for second in range(399):
        progress = which.advance(progress, READY, after(second), [measured("success", second, step=0)])
    assert progress.phase is Phase.ANALYSING
    assert (
        which.advance(progress, READY, after(399), [measured("success", 399, step=0)]).phase
        is Phase.PROMOTING
    )


@pytest.mark.parametrize("promote", [True, False])
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.AWAITING_DECISION])
def test_an_answer_to_no_question_is_ignored(phase: Phase, promote: bool) -> None:
    which = plan({"weight": 10}, {"pause": "1h"}, {"pause": {}}, {"analysis": "errors"}, {"weight": 20})
    if phase in (Phase.ABORTING, Phase.ABORTED):
        progress = which.begin(NOW).aborting("bad", NOW).model_copy(update={"phase": phase})
    else:
        progress = (
            at(which, phase) if phase is not Phase.PAUSED else which.advance(which.begin(NOW), READY, NOW)
        )
    answer = RolloutAnswer(promote=promote, by="ann")
    for seen in (READY, UNREADY):
        assert which.advance(progress, seen, after(1), answer=answer) == which.advance(
            progress, seen, after(1)
        )


def test_an_answer_that_is_told_twice_is_not_one_to_the_next_question() -> None:
    which = plan({"weight": 10}, {"pause": {}}, {"pause": {}})
    answer = RolloutAnswer(promote=True, by="ann", step=1)
    asked_again = which.advance(at(which, Phase.AWAITING_DECISION), READY, after(1), answer=answer)
    assert (asked_again.phase, asked_again.step) == (Phase.AWAITING_DECISION, 2)
    assert which.advance(asked_again, READY, after(2), answer=answer) == asked_again


def test_aborting_twice_is_aborting_once() -> None:
    which = plan({"weight": 10})
    given_back = which.begin(NOW).aborting("bad", NOW)
    assert given_back.aborting("worse", after(5)) == given_back
    over = which.advance(given_back, READY, after(6))
    assert (over.phase, over.reason) == (Phase.ABORTED, "bad")
    assert over.aborting("worse", after(7)) == over
    promoted = at(which, Phase.PROMOTED)
    assert promoted.aborting("too late", after(7)) == promoted


def test_what_is_given_back_is_over_when_what_ran_before_is_ready_or_nothing_helps() -> None:
    which = plan({"weight": 10})
    given_back = which.begin(NOW).aborting("bad", NOW)
    waiting = which.advance(given_back, UNREADY, after(599))
    assert waiting.phase is Phase.ABORTING
    assert which.advance(waiting, Observation(ready=False, broken="gone"), after(599)).phase is Phase.ABORTED
    stuck = which.advance(waiting, UNREADY, after(600))
    assert stuck.phase is Phase.ABORTED
    assert stuck.reason is not None and "the release before is not ready either" in stuck.reason


def test_what_is_over_stays_as_it_is() -> None:
    which = plan({"weight": 10})
    for progress in (
        at(which, Phase.PROMOTED),
        which.advance(which.begin(NOW).aborting("bad", NOW), READY, NOW),
    ):
        seen = Observation(ready=False, broken="gone", weight=3.0, count="0 of 3")
        assert which.advance(progress, seen, after(10**6), [measured("failure", 1)]) == progress


def test_a_clock_set_back_stalls_nothing_and_makes_no_pause_shorter() -> None:
    which = plan({"weight": 10}, {"pause": "1h"})
    before = which.advance(which.begin(NOW), READY, NOW)
    yesterday = NOW - timedelta(days=1)
    paused = which.advance(before, READY, yesterday)
    assert paused.phase is Phase.PAUSED
    assert which.advance(paused, READY, yesterday + timedelta(minutes=59)).phase is Phase.PAUSED
    assert which.advance(paused, READY, yesterday + timedelta(minutes=60)).phase is Phase.PROMOTING


def test_after_a_clock_was_set_back_measurements_go_on() -> None:
    which = Plan([CanaryStep(analysis=("errors",))], {"errors": ERRORS.model_copy(update={"count": 3})})
    progress = which.advance(which.begin(NOW), READY, after(2), [measured("success", 1, step=0)])
    yesterday = -86400
    assert which.due(progress, after(yesterday)) == ["errors"]
    progress = which.advance(progress, READY, after(yesterday), [measured("success", yesterday, step=0)])
    assert which.due(progress, after(yesterday + 29)) == []
    assert which.due(progress, after(yesterday + 30)) == ["errors"]
    assert len(progress.measurements) == 2
    worse = which.advance(progress, READY, after(1), [measured("failure", 1, step=0)])
    assert worse.phase is Phase.ABORTING, "it came to the very moment of another one"


def test_a_question_keeps_its_name_when_the_clock_is_set_back() -> None:
    which = plan({"weight": 10}, {"pause": {}})
    progress = at(which, Phase.AWAITING_DECISION)
    assert which.advance(progress, READY, NOW - timedelta(days=1)).since == progress.since


def test_it_is_looked_at_when_something_is_due() -> None:
    which = plan({"weight": 10}, {"pause": "20s"}, {"analysis": "errors"})
    progress = which.advance(which.begin(NOW), READY, NOW)
    assert which.seconds_to_next(progress, after(5)) == 15
    lost = which.advance(progress, UNREADY, after(2))
    assert which.seconds_to_next(lost, after(5)) == LOST_AFTER.total_seconds() - 3
    analysing = at(which, Phase.ANALYSING)
    assert which.due(analysing, NOW) == ["errors"] and which.seconds_to_next(analysing, NOW) == 0


def test_where_it_stands_is_told_with_what_it_really_gets() -> None:
    which = plan({"weight": 10}, {"pause": {}})
    seen = Observation(ready=True, count="1 of 1 ready", weight=33.3)
    told = which.described(which.advance(which.begin(NOW), seen, NOW))
    assert told == (
        "asking at 10 % (really 33 %), step 2 of 2 (pause until approved): "
        "1 of 1 ready; the strategy asks to go on"
    )


def test_a_progress_is_the_same_after_it_was_stored() -> None:
    which = plan({"weight": 10}, {"analysis": "errors"})
    progress = which.advance(at(which, Phase.ANALYSING), READY, after(2), [measured("error", 1)])
    assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_a_check_is_due_at_the_deadline_while_something_should_move_and_only_then() -> None:
    which = plan({"weight": 10}, {"pause": {}})
    moving, asking = which.begin(NOW), at(which, Phase.AWAITING_DECISION)
    promoting, aborting = at(which, Phase.PROMOTING), moving.aborting("bad", NOW)
    for progress in (moving, promoting, aborting):
        assert which.seconds_to_next(progress, after(500)) == 30
        assert which.seconds_to_next(progress, after(595)) == 5
        assert which.seconds_to_next(progress, after(605)) == 0
    assert which.seconds_to_next(asking, after(595)) == 30


def test_where_it_stands_needs_neither_a_measured_weight_nor_details_nor_a_step() -> None:
    which = plan({"weight": 10})
    progress = which.begin(NOW)
    assert which.described(progress) == "setting at 10 %, step 1 of 1 (10 %)"
    assert which.described(progress.model_copy(update={"achieved": 10.4})) == which.described(progress)
    assert which.described(which.advance(progress, READY, NOW)) == "promoting at 100 %"


def test_the_deadline_of_an_abort_begins_again_when_the_release_before_moves() -> None:
    which = plan({"weight": 10})
    aborting = which.begin(NOW).aborting("bad", NOW)
    one = UNREADY.model_copy(update={"count": "1 of 3 ready"})
    moved = which.advance(aborting, one, after(599))
    assert (moved.phase, moved.count, moved.moved_at) == (Phase.ABORTING, "1 of 3 ready", after(599))
    assert which.advance(moved, one, after(1198)).phase is Phase.ABORTING
    over = which.advance(moved, one, after(1199))
    assert over.reason == "bad; and the release before is not ready either: 1 of 3 ready"


def test_why_a_rollout_waits_or_aborts_says_what_was_seen() -> None:
    which = plan({"weight": 10}, {"analysis": ["errors", "more"]})
    which = Plan(which.steps, {"errors": ERRORS, "more": ERRORS}, which.deadline)
    analysing = which.advance(which.begin(NOW), READY, NOW)
    both = [
        measured("inconclusive", 1).model_copy(update={"analysis": name, "detail": f"{name} unclear"})
        for name in ("errors", "more")
    ]
    asking = which.advance(analysing, READY, after(1), both)
    told = "1 of 1 measurements say neither yes nor no (none tolerated); the last one:"
    assert asking.phase is Phase.AWAITING_DECISION
    assert asking.reason == f"analysis errors: {told} errors unclear; analysis more: {told} more unclear"

    lost = Observation(ready=False, count="1 of 3 ready", trouble="out of memory")
    losing = which.advance(analysing, lost, after(1))
    assert losing.count == "1 of 3 ready"
    gone = which.advance(losing, lost, after(11))
    assert gone.reason == "the new release was ready and is not any more: 1 of 3 ready; out of memory"

    stuck = which.advance(which.begin(NOW), Observation(ready=False), after(600))
    assert (stuck.phase, stuck.since, stuck.moved_at) == (Phase.ABORTING, after(600), after(600))


def test_a_promoted_rollout_keeps_the_count_that_was_seen_last() -> None:
    which = plan({"weight": 10})
    seen = Observation(ready=True, count="3 of 3 ready")
    assert which.advance(at(which, Phase.PROMOTING), seen, after(1)).count == "3 of 3 ready"
