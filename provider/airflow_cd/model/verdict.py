"""How samples of a health check become a verdict."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from airflow_cd.model.base import Frozen, format_duration
from airflow_cd.model.health import HealthCheck

_KEPT_SAMPLES = 20


class Sample(Frozen):
    """
    One look at a service.

    :param at: when it was taken, for people; judging uses elapsed time, which no clock change can bend
    :param seconds: how long the answer took
    :param detail: what was seen, in a few words
    """

    at: datetime
    ok: bool
    seconds: float
    detail: str


class Verdict(Frozen):
    """What became of one health check. ``samples`` are the last ones, oldest first."""

    healthy: bool
    reason: str
    good: int
    bad: int
    samples: tuple[Sample, ...]


class Tally:
    """What was seen of one check so far. Times are seconds since the watch began."""

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._samples: deque[Sample] = deque(maxlen=_KEPT_SAMPLES)
        self._bad_at: deque[float] = deque()
        self.good = self.bad = 0
        self.row = 0  # good ones in a row, up to now

    def see(self, sample: Sample) -> None:
        """Take note of a sample without counting it."""
        self._samples.append(sample)
        self.row = self.row + 1 if sample.ok else 0

    def count(self, sample: Sample, elapsed: float) -> None:
        """Count a sample that was seen, and was complete after ``elapsed`` seconds."""
        if sample.ok:
            self.good += 1
        else:
            self.bad += 1
            self._bad_at.append(elapsed)

    def excess(self, elapsed: float) -> str | None:
        """Return what is wrong when there are more bad samples in the last ``window`` than are tolerated."""
        while self._bad_at and self._bad_at[0] <= elapsed - self._check.window.total_seconds():
            self._bad_at.popleft()
        if len(self._bad_at) <= self._check.failures:
            return None
        return (
            f"{len(self._bad_at)} bad samples within {format_duration(self._check.window)}, "
            f"{self._check.failures} are tolerated; the last: {self.last_bad()}"
        )

    def last_bad(self) -> str:
        """Return what the last bad sample saw."""
        return next((sample.detail for sample in reversed(self._samples) if not sample.ok), "none")

    def verdict(self, healthy: bool, reason: str) -> Verdict:
        """Return the verdict, with what it is based on."""
        samples = tuple(self._samples)
        return Verdict(healthy=healthy, reason=reason, good=self.good, bad=self.bad, samples=samples)


class Judge:
    """
    Judges the samples of one check; the first verdict stays.

    Healthy after ``healthy_after`` good samples in a row. Unhealthy when the bad samples of the last
    ``window`` exceed ``failures``, or when ``timeout`` is over. Times are seconds since the watch began.
    """

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._tally = Tally(check)
        self.verdict: Verdict | None = None

    def add(self, sample: Sample, elapsed: float) -> Verdict | None:
        """Take a sample that was complete after ``elapsed`` seconds; return the verdict if there is one."""
        if self.verdict is not None:
            return self.verdict
        tally = self._tally
        tally.see(sample)
        tally.count(sample, elapsed)
        if tally.row >= self._check.healthy_after:
            return self._decide(True, f"{tally.row} good samples in a row")
        if excess := tally.excess(elapsed):
            return self._decide(False, excess)
        return self.expire(elapsed)

    def expire(self, elapsed: float) -> Verdict | None:
        """Return the verdict if the time is over after ``elapsed`` seconds."""
        if self.verdict is None and elapsed >= self._check.timeout.total_seconds():
            tally = self._tally
            self._decide(
                False,
                f"not healthy within {format_duration(self._check.timeout)} "
                f"({tally.good} good and {tally.bad} bad samples); the last bad one: {tally.last_bad()}",
            )
        return self.verdict

    def progress(self) -> str:
        """Return where the judging stands, for a log line."""
        return f"{self._tally.row} of {self._check.healthy_after} good in a row, {self._tally.bad} bad so far"

    def _decide(self, healthy: bool, reason: str) -> Verdict:
        self.verdict = self._tally.verdict(healthy, reason)
        return self.verdict
