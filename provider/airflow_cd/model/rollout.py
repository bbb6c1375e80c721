"""A rollout step by step: its progress, and the decisions about it. No clock, no cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.base import Frozen, format_duration
from airflow_cd.model.strategy import APPROVAL, CanaryStep


class Phase(str, Enum):
    """What a rollout is doing."""

    SHIFTING_TRAFFIC = "setting"  # the release is being given its share
    PAUSED = "paused"  # for a time
    AWAITING_DECISION = "asking"  # until a person says how to go on
    ANALYSING = "analysing"
    PROMOTING = "promoting"  # it is being given everything
    PROMOTED = "promoted"
    ABORTING = "aborting"  # everything is being given back
    ABORTED = "aborted"


OVER = (Phase.PROMOTED, Phase.ABORTED)
HOLDING = (Phase.PAUSED, Phase.AWAITING_DECISION, Phase.ANALYSING)


class Observation(Frozen):
    """
    What was seen of the place a rollout happens at.

    :param ready: everything that the phase asks of the new release is there, up to date and ready
    :param count: how far it is, in a few words (``2 of 3 ready``); that it changes is progress
    :param trouble: what keeps it from that now, as far as it is known; it may pass
    :param broken: why the new release will certainly not become ready, as far as that is known
    :param restored: everything is given back to the release before, and that is ready
    :param weight: percent that the new release really gets, ``None`` where that is not known
    """

    ready: bool
    count: str = ""
    trouble: str | None = None
    broken: str | None = None
    restored: bool = True
    weight: float | None = None

    @property
    def told(self) -> str:
        """Return how far it is and what keeps it, for people."""
        return "; ".join(filter(None, (self.count, self.trouble)))


class RolloutAnswer(Frozen):
    """
    The answer of a person to a rollout that awaits a decision.

    :param step: number of the step that asked, so that a repeated answer does not answer the next question;
        ``None`` is whichever asks
    """

    promote: bool
    by: str
    reason: str | None = None
    step: int | None = None


class Progress(Frozen):
    """
    How far a rollout is.

    :param step: number of the strategy's step, from 0; as many as there are steps when none is left
    :param weight: percent of the requests that the new release is to get
    :param since: when the phase began
    :param moved_at: when something moved the last time
    :param unready_since: since when the new release is not ready although it was
    :param applied: whether the target has received this phase and weight
    :param count: what was seen last
    :param achieved: percent that the new release was seen to get
    :param trouble: what kept it from going on when it was looked at last
    :param reason: why it is asking, or was aborted
    """

    phase: Phase
    step: int
    weight: int
    since: datetime
    moved_at: datetime
    unready_since: datetime | None = None
    applied: bool = False
    count: str = ""
    achieved: float | None = None
    trouble: str | None = None
    reason: str | None = None
    measurements: tuple[Measurement, ...] = ()

    @property
    def over(self) -> bool:
        """Return whether nothing is left to do."""
        return self.phase in OVER

    def entered(self, phase: Phase, now: datetime, **changes: object) -> Progress:
        """Return the progress at the beginning of a phase."""
        shown = {"reason": None, "trouble": None, "unready_since": None, **changes}
        # Phases that only wait ask nothing new of the target.
        applied = self.applied and phase in HOLDING
        told = {"phase": phase, "since": now, "moved_at": now, "applied": applied, **shown}
        return self.model_copy(update=told)

    def aborting(self, reason: str, now: datetime) -> Progress:
        """
        Return the progress that gives everything back.

        One that is over, or aborts already, stays as it is.
        """
        if self.over or self.phase is Phase.ABORTING:
            return self
        return self.entered(Phase.ABORTING, now, weight=0, reason=reason)

    def is_answered_by(self, answer: RolloutAnswer | None) -> bool:
        """Return whether it asks just what the answer is to."""
        asks = self.phase is Phase.AWAITING_DECISION
        return asks and answer is not None and answer.step in (None, self.step)

    def not_ahead(self, now: datetime) -> Progress:
        """
        Return the progress with what happened later than now having happened now.

        Where a clock was set back, nothing has to wait until it has caught up; and no wait becomes shorter.
        """
        changes: dict[str, object] = {}
        # The moment it began to ask is the name of its question.
        if self.since > now and self.phase is not Phase.AWAITING_DECISION:
            changes["since"] = now
        if self.moved_at > now:
            changes["moved_at"] = now
        if self.unready_since is not None and self.unready_since > now:
            changes["unready_since"] = now
        return self.model_copy(update=changes) if changes else self


# Instances that are being replaced, or a check that was late once, are no loss of readiness.
LOST_AFTER = timedelta(seconds=10)
# Of steps that are over; those of the current one are what it is judged by.
_KEPT_MEASUREMENTS = 50


@dataclass(frozen=True)
class Plan:
    """
    What a rollout goes through.

    :param steps: before the release gets everything
    :param analyses: by name
    :param deadline: how long nothing may move while something should
    """

    steps: Sequence[CanaryStep] = ()
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    deadline: timedelta = timedelta(minutes=10)

    def begin(self, now: datetime) -> Progress:
        """Return the beginning."""
        first = Progress(phase=Phase.SHIFTING_TRAFFIC, step=0, weight=0, since=now, moved_at=now)
        return self._enter(first, 0, now)

    def advance(
        self,
        progress: Progress,
        seen: Observation,
        now: datetime,
        measurements: Sequence[Measurement] = (),
        answer: RolloutAnswer | None = None,
    ) -> Progress:
        """
        Return how it goes on; the same progress when there is nothing new.

        :param seen: the observation made after this progress was applied
        :param measurements: taken since; those for another step, and duplicates, are ignored
        :param answer: to the question of this progress; ignored when it asks nothing
        """
        if progress.over:
            return progress
        progress = self._noted(progress.not_ahead(now), seen, measurements)
        if progress.phase is Phase.ABORTING:
            return self._aborting(progress, seen, now)
        if not progress.is_answered_by(answer):
            answer = None
        if answer is not None and not answer.promote:
            return progress.aborting(f"aborted by {answer.by}: {answer.reason or 'no reason given'}", now)
        if seen.broken is not None:
            return progress.aborting(seen.broken, now)
        if progress.phase in HOLDING:
            return self._holding(progress, seen, now, answer)
        return self._moving(progress, seen, now)

    def due(self, progress: Progress, now: datetime) -> list[str]:
        """Return the names of the analyses to be measured now."""
        return [name for name in self._analysed(progress) if self._due_at(progress, name, now) <= now]

    def seconds_to_next(self, progress: Progress, now: datetime) -> float:
        """Return after how many seconds something is to be looked at, if nothing happens before."""
        times = [now + timedelta(seconds=30)]
        times += [self._due_at(progress, name, now) for name in self._analysed(progress)]
        pause = self._pause(progress)
        if pause is not None:
            times.append(progress.since + pause)
        if progress.phase in (Phase.SHIFTING_TRAFFIC, Phase.PROMOTING, Phase.ABORTING):
            times.append(progress.moved_at + self.deadline)
        if progress.unready_since is not None:
            times.append(progress.unready_since + LOST_AFTER)
        return max((min(times) - now).total_seconds(), 0.0)

    def described(self, progress: Progress) -> str:
        """Return where it stands, for people."""
        phase, share = progress.phase.value, f"{progress.weight} %"
        if progress.achieved is not None and round(progress.achieved) != progress.weight:
            share += f" (really {progress.achieved:.0f} %)"
        step = ""
        if progress.step < len(self.steps):
            step = f", step {progress.step + 1} of {len(self.steps)} ({self.steps[progress.step].described})"
        details = "; ".join(filter(None, (progress.count, progress.trouble, progress.reason)))
        return f"{phase} at {share}{step}{': ' + details if details else ''}"

    def _noted(self, progress: Progress, seen: Observation, measurements: Sequence[Measurement]) -> Progress:
        ours = self._analysed(progress)
        # By all that it says: a clock that is set back may come to the moment of another one.
        fresh = [
            one
            for one in measurements
            if one.step == progress.step and one.analysis in ours and one not in progress.measurements
        ]
        if fresh:
            known = progress.measurements
            older = [one for one in known if one.step != progress.step][-_KEPT_MEASUREMENTS:]
            current = [one for one in known if one.step == progress.step]
            progress = progress.model_copy(update={"measurements": (*older, *current, *fresh)})
        return progress.model_copy(update={"achieved": seen.weight, "trouble": seen.trouble})

    def _moving(self, progress: Progress, seen: Observation, now: datetime) -> Progress:
        if seen.ready:
            if progress.phase is Phase.PROMOTING:
                return progress.entered(Phase.PROMOTED, now, count=seen.count)
            return self._enter(progress.model_copy(update={"count": seen.count}), progress.step + 1, now)
        if seen.count != progress.count:
            return progress.model_copy(update={"count": seen.count, "moved_at": now})
        if now - progress.moved_at >= self.deadline:
            return progress.aborting(f"nothing moved for {format_duration(self.deadline)}: {seen.told}", now)
        return progress

    def _holding(
        self, progress: Progress, seen: Observation, now: datetime, answer: RolloutAnswer | None
    ) -> Progress:
        progress = progress.model_copy(update={"count": seen.count})
        if not seen.ready:
            since = progress.unready_since or now
            if now - since >= LOST_AFTER:
                return progress.aborting(f"the new release was ready and is not any more: {seen.told}", now)
            return progress.model_copy(update={"unready_since": since})
        progress = progress.model_copy(update={"unready_since": None})
        if progress.phase is Phase.ANALYSING:
            return self._judged(progress, now)
        pause = self._pause(progress)
        if answer is not None or (pause is not None and now - progress.since >= pause):
            return self._enter(progress, progress.step + 1, now)
        return progress

    def _judged(self, progress: Progress, now: datetime) -> Progress:
        names = self._analysed(progress)
        found = {name: self.analyses[name].judge(self._taken(progress, name)) for name in names}
        told = {name: f"analysis {name}: {one.reason}" for name, one in found.items() if one is not None}
        outcomes = {name: one.outcome for name, one in found.items() if one is not None}
        for name, outcome in outcomes.items():
            if outcome in ("failure", "error"):
                return progress.aborting(told[name], now)
        if len(outcomes) < len(names):
            return progress
        unclear = [told[name] for name, outcome in outcomes.items() if outcome == "inconclusive"]
        if unclear:
            return progress.entered(Phase.AWAITING_DECISION, now, reason="; ".join(unclear))
        return self._enter(progress, progress.step + 1, now)

    def _aborting(self, progress: Progress, seen: Observation, now: datetime) -> Progress:
        if seen.restored:
            return progress.entered(Phase.ABORTED, now, reason=progress.reason)
        if seen.count != progress.count:
            return progress.model_copy(update={"count": seen.count, "moved_at": now})
        if now - progress.moved_at >= self.deadline:
            why = f"{progress.reason}; and the release before is not ready either: {seen.told}"
            return progress.entered(Phase.ABORTED, now, reason=why)
        return progress

    def _enter(self, progress: Progress, number: int, now: datetime) -> Progress:
        if number >= len(self.steps):
            return progress.entered(Phase.PROMOTING, now, step=len(self.steps), weight=100)
        step = self.steps[number]
        if step.weight is not None:
            return progress.entered(Phase.SHIFTING_TRAFFIC, now, step=number, weight=step.weight)
        # The reported weight stays true.
        if step.analysis is not None:
            return progress.entered(Phase.ANALYSING, now, step=number)
        if step.pause == APPROVAL:
            return progress.entered(
                Phase.AWAITING_DECISION, now, step=number, reason="the strategy asks to go on"
            )
        return progress.entered(Phase.PAUSED, now, step=number)

    def _analysed(self, progress: Progress) -> tuple[str, ...]:
        if progress.phase is not Phase.ANALYSING:
            return ()
        return self.steps[progress.step].analysis or ()

    def _taken(self, progress: Progress, name: str) -> list[Measurement]:
        step = progress.step
        return [one for one in progress.measurements if (one.analysis, one.step) == (name, step)]

    def _due_at(self, progress: Progress, name: str, now: datetime) -> datetime:
        analysis, taken = self.analyses[name], self._taken(progress, name)
        if taken and taken[-1].at - now > analysis.interval and analysis.judge(taken) is None:
            return now  # the clock was set back since then
        return analysis.due_at(progress.since, taken)

    def _pause(self, progress: Progress) -> timedelta | None:
        if progress.phase is not Phase.PAUSED:
            return None
        pause = self.steps[progress.step].pause
        return pause if isinstance(pause, timedelta) else None
