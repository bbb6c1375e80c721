"""Whatever is seen, said, measured and killed, in whatever order, and whatever the clock does meanwhile."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.rollout import Observation, Phase, Plan, Progress, RolloutAnswer
from airflow_cd.model.strategy import APPROVAL, CanaryStep

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)
ANALYSES = {
    name: Analysis.model_validate(
        {"http": {"url": "http://metrics.example/"}, "success": "< 1", "failure": ">= 2", "count": count}
    )
    for name, count in (("errors", 2), ("latency", 3))
}
steps = st.one_of(
    st.integers(0, 100).map(lambda weight: CanaryStep(weight=weight)),
    st.integers(0, 120).map(lambda seconds: CanaryStep(pause=timedelta(seconds=seconds))),
    st.just(CanaryStep(pause=APPROVAL)),
    st.lists(st.sampled_from(sorted(ANALYSES)), min_size=1, max_size=2, unique=True).map(
        lambda names: CanaryStep(analysis=tuple(names))
    ),
)
observations = st.builds(
    Observation,
    ready=st.sampled_from([True, True, True, False]),
    count=st.sampled_from(["0 of 2", "1 of 2"]),
    broken=st.sampled_from([None] * 15 + ["no image"]),
    restored=st.booleans(),
)
answers = st.none() | st.builds(
    RolloutAnswer, promote=st.booleans(), by=st.just("ann"), step=st.none() | st.integers(0, 4)
)
OUTCOMES = {"success": 0.0, "failure": 3.0, "inconclusive": 1.5, "error": None}


class Rollout(RuleBasedStateMachine):
    """One rollout. What really happened is kept beside what it remembers."""

    @initialize(given=st.lists(steps, max_size=5))
    def begin(self, given: list[CanaryStep]) -> None:
        self.plan = Plan(given, ANALYSES, timedelta(seconds=100))
        self.now = START
        self.progress = self.plan.begin(self.now)
        self.visited = [self.progress.step]
        self.entered()

    def entered(self) -> None:
        self.waited = timedelta(0)  # in this phase, as a stopwatch has it
        self.jumped = timedelta(0)  # forward, in this phase
        self.told: list[Measurement] = []

    @rule(seconds=st.integers(0, 90))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.waited += timedelta(seconds=seconds)

    @rule(forward=st.booleans())
    def the_clock_is_set(self, forward: bool) -> None:
        # Never to a moment that was: the same value at the same moment is the same measurement.
        self.now += (DAY if forward else -DAY) + timedelta(microseconds=1)
        self.jumped += DAY if forward else timedelta(0)

    @rule(seen=observations, answer=answers, outcome=st.sampled_from(["success"] * 5 + sorted(OUTCOMES)))
    def somebody_looks(self, seen: Observation, answer: RolloutAnswer | None, outcome: str) -> None:
        before = self.progress
        measurements = [self.measured(name, outcome) for name in self.plan.due(before, self.now)]
        after = self.plan.advance(before, seen, self.now, measurements, answer)
        assert after == self.plan.advance(before, seen, self.now, measurements, answer), "killed, and again"
        asking = (
            before.phase is Phase.AWAITING_DECISION
            and answer is not None
            and answer.step in (None, before.step)
        )
        if not asking:
            assert after == self.plan.advance(before, seen, self.now, measurements), "nobody was asked"
        self.told += measurements
        self.check_move(before, after, seen, answer if asking else None)
        self.progress = after
        if (after.phase, after.step) != (before.phase, before.step):
            self.visited.append(after.step)
            self.entered()

    @rule(seen=observations)
    def what_was_told_is_told_again(self, seen: Observation) -> None:
        again = self.plan.advance(self.progress, seen, self.now, self.told)
        assert again == self.plan.advance(self.progress, seen, self.now)

    @rule()
    def somebody_aborts(self) -> None:
        once = self.progress.aborting("enough", self.now)
        assert once.aborting("more than enough", self.now + DAY) == once
        assert self.progress.over is (once == self.progress) or self.progress.phase is Phase.ABORTING
        if self.now.second % 7 == 0:  # else hardly any would get far
            if once.phase is not self.progress.phase:
                self.entered()
            self.progress = once

    @rule()
    def it_is_read_back(self) -> None:
        self.progress = Progress.model_validate_json(self.progress.model_dump_json())

    def measured(self, name: str, outcome: str) -> Measurement:
        return Measurement(
            analysis=name,
            step=self.progress.step,
            at=self.now,
            value=OUTCOMES[outcome],
            outcome=outcome,
            detail="",
        )

    def check_move(
        self, before: Progress, after: Progress, seen: Observation, answer: RolloutAnswer | None
    ) -> None:
        forward = after.step > before.step or after.phase is Phase.PROMOTED is not before.phase
        if not forward:
            if after.phase is Phase.ABORTING is not before.phase and "nothing moved" in str(after.reason):
                assert before.phase in (Phase.SHIFTING_TRAFFIC, Phase.PROMOTING), "nothing was to move"
                assert self.waited + self.jumped >= self.plan.deadline
            return
        assert seen.ready and seen.broken is None
        step = self.plan.steps[before.step] if before.step < len(self.plan.steps) else None
        if before.phase is Phase.PAUSED:
            assert step is not None and isinstance(step.pause, timedelta)
            assert self.waited + self.jumped >= step.pause
        elif before.phase is Phase.AWAITING_DECISION:
            assert answer is not None and answer.promote
        elif before.phase is Phase.ANALYSING:
            assert step is not None
            for name in step.analysis or ():
                judged = ANALYSES[name].judge([one for one in self.told if one.analysis == name])
                assert judged is not None and judged.outcome == "success"

    @invariant()
    def every_step_is_taken_in_order(self) -> None:
        assert all(
            0 <= later - earlier <= 1 for earlier, later in zip(self.visited, self.visited[1:], strict=False)
        )
        if self.progress.phase in (Phase.PROMOTING, Phase.PROMOTED):
            assert self.visited[-1] == self.progress.step == len(self.plan.steps)

    @invariant()
    def it_gets_what_the_steps_say(self) -> None:
        progress = self.progress
        weights = [step.weight for step in self.plan.steps[: progress.step + 1] if step.weight is not None]
        if progress.phase in (Phase.ABORTING, Phase.ABORTED):
            assert progress.weight == 0 and progress.reason
        elif progress.phase in (Phase.PROMOTING, Phase.PROMOTED):
            assert progress.weight == 100
        else:
            assert progress.weight == (weights[-1] if weights else 0)

    @invariant()
    def it_is_looked_at_again(self) -> None:
        assert 0 <= self.plan.seconds_to_next(self.progress, self.now) <= 30


class TestRollout(Rollout.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=60)
