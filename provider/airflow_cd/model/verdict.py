"""How samples of a health check become a verdict."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta

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


class FailureWindow:
    """Counts the bad samples of the last ``window``. Times are seconds since the watch began."""

    def __init__(self, window: timedelta) -> None:
        self._seconds = window.total_seconds()
        self._bad_at: deque[float] = deque()

    def add(self, elapsed: float) -> int:
        """Take a bad sample and return how many there are."""
        self._bad_at.append(elapsed)
        return self.count(elapsed)

    def count(self, elapsed: float) -> int:
        """Return how many there are now."""
        while self._bad_at and self._bad_at[0] <= elapsed - self._seconds:
            self._bad_at.popleft()
        return len(self._bad_at)


class Judge:
    """
    Judges the samples of one check; the first verdict stays.

    Healthy after ``healthy_after`` good samples in a row. Unhealthy when the bad samples of the last
    ``window`` exceed ``failures``, or when ``timeout`` is over. Times are seconds since the watch began.
    """

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._samples: deque[Sample] = deque(maxlen=_KEPT_SAMPLES)
        self._failures = FailureWindow(check.window)
        self._row = self._good = self._bad = 0
        self.verdict: Verdict | None = None

    def add(self, sample: Sample, elapsed: float) -> Verdict | None:
        """Take a sample that was complete after ``elapsed`` seconds; return the verdict if there is one."""
        if self.verdict is not None:
            return self.verdict
        self._samples.append(sample)
        if sample.ok:
            self._good, self._row = self._good + 1, self._row + 1
        else:
            self._bad, self._row = self._bad + 1, 0
            self._failures.add(elapsed)
        if sample.ok and self._row >= self._check.healthy_after:
            return self._decide(True, f"{self._row} good samples in a row")
        bad = self._failures.count(elapsed)
        if bad > self._check.failures:
            return self._decide(
                False,
                f"{bad} bad samples within {format_duration(self._check.window)}, "
                f"{self._check.failures} are tolerated; the last: {self._last_bad()}",
            )
        return self.expire(elapsed)

    def expire(self, elapsed: float) -> Verdict | None:
        """Return the verdict if the time is over after ``elapsed`` seconds."""
        if self.verdict is None and elapsed >= self._check.timeout.total_seconds():
            self._decide(
                False,
                f"not healthy within {format_duration(self._check.timeout)} "
                f"({self._good} good and {self._bad} bad samples); the last bad one: {self._last_bad()}",
            )
        return self.verdict

    def progress(self) -> str:
        """Return where the judging stands, for a log line."""
        return f"{self._row} of {self._check.healthy_after} good in a row, {self._bad} bad so far"

    def _last_bad(self) -> str:
        return next((sample.detail for sample in reversed(self._samples) if not sample.ok), "none")

    def _decide(self, healthy: bool, reason: str) -> Verdict:
        self.verdict = Verdict(
            healthy=healthy, reason=reason, good=self._good, bad=self._bad, samples=tuple(self._samples)
        )
        return self.verdict
