"""How far a rollout is, and what is seen and said of it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from airflow_cd.model.analysis import Measurement
from airflow_cd.model.base import Frozen


class Phase(str, Enum):
    """What a rollout is doing."""

    SHIFTING_TRAFFIC = "setting"  # the release is being given its share
    PAUSED = "paused"  # for a time
    AWAITING_DECISION = "asking"  # until somebody says how to go on
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
    :param weight: percent that the new release really gets, ``None`` where that cannot be told
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
    What somebody said to a rollout that asked.

    :param step: number of the step that asked, so that an answer told twice is not one to the next question;
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
    :param applied: whether the target has been told of this phase and weight
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
