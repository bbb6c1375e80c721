"""Watching a release after its pipeline has ended, and when that watch raises an alarm."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.health import HealthCheck
from airflow_cd.model.release import Digest
from airflow_cd.model.text import printable
from airflow_cd.model.verdict import Sample, Tally, Verdict

_LONGEST_REASON = 1000


class MonitorSettings(Frozen):
    """
    How an environment is watched after a release was deployed to it.

    :param rollback: whether an alarm rolls back; ``false`` switches the watch off
    :param bake_time: how long after a deployment its release is watched. Later trouble has other causes
        than the release, as a rule, and a rollback would not help.
    :param interval: time between two samples of a check; ``None`` is the check's own
    :param failures: bad samples within ``window`` that are tolerated; ``None`` is the check's own number
    :param window: over how much time failures are counted; ``None`` is the check's own
    """

    rollback: bool = True
    bake_time: Duration = timedelta(hours=1)
    interval: Duration | None = None
    failures: int | None = Field(None, ge=0)
    window: Duration | None = None

    def check(self, check: HealthCheck) -> HealthCheck:
        """Return the health check as this watch takes it."""
        own = {"interval": self.interval, "failures": self.failures, "window": self.window}
        return check.model_copy(update={name: value for name, value in own.items() if value is not None})


class AlarmPayload(Frozen):
    """
    What a rollback needs of an alarm's event. Whoever may create asset events may create any.

    :param environment: where the release runs
    :param generation: of the target's record, when the alarm was raised
    :param digest: the release that went bad
    :param reason: what was seen
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    environment: str
    generation: int
    digest: Digest
    reason: Annotated[str, AfterValidator(lambda text: printable(text, _LONGEST_REASON))]


class Alarm:
    """
    Judges the samples of one check for as long as its release runs; it can only turn out bad.

    It counts nothing until the release was healthy once (``healthy_after`` good samples in a row), or until
    it is armed by its owner: whether a new release becomes healthy at all is for its pipeline to judge.
    """

    def __init__(self, check: HealthCheck) -> None:
        self._healthy_after = check.healthy_after
        self._tally = Tally(check)
        self.armed = False

    def add(self, sample: Sample, elapsed: float) -> Verdict | None:
        """Take a sample that was complete after ``elapsed`` seconds; return the verdict if it is bad."""
        self._tally.see(sample)
        self.armed = self.armed or self._tally.row >= self._healthy_after
        if not self.armed:
            return None
        self._tally.count(sample, elapsed)
        # A good sample is no news, however many bad ones came before it.
        excess = None if sample.ok else self._tally.excess(elapsed)
        return self._tally.verdict(False, excess) if excess else None
