"""Health checks: what is sampled, how samples become a verdict, and when a monitor raises an alarm."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from airflow_cd.model.base import Duration, Frozen, format_duration
from airflow_cd.model.release import Digest
from airflow_cd.model.text import printable


class HealthCheck(Frozen):
    """
    One thing to sample. Exactly one of ``http``, ``tcp`` and ``command`` is given.

    :param http: path on the service (``/healthz``) or a whole URL
    :param status: HTTP status that counts as good
    :param body: text the response must contain
    :param latency: a slower response is a failed sample
    :param tcp: port (on the service's host) or ``host:port`` that must accept a connection
    :param command: argv list that must end with exit code 0
    :param interval: time between the starts of two samples
    :param sample_timeout: a sample that takes longer has failed
    :param healthy_after: consecutive good samples that make the verdict healthy
    :param failures: bad samples within ``window`` that are tolerated; one more makes the verdict unhealthy
    :param window: over how much time failures are counted
    :param timeout: without a verdict after this time the service is unhealthy
    """

    http: str | None = None
    status: int = Field(200, ge=100, le=599)
    body: str | None = None
    latency: Duration | None = None
    tcp: Annotated[int, Field(ge=1, le=65535)] | str | None = None
    command: tuple[str, ...] | None = None
    interval: Duration = timedelta(seconds=5)
    sample_timeout: Duration = timedelta(seconds=5)
    healthy_after: int = Field(3, ge=1)
    failures: int = Field(3, ge=0)
    window: Duration = timedelta(seconds=60)
    timeout: Duration = timedelta(seconds=120)

    @property
    def shortest(self) -> timedelta:
        """Return how long a healthy service is watched at least."""
        return self.interval * (self.healthy_after - 1)

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, data: Any) -> Any:
        if isinstance(data, dict):
            given = [kind for kind in ("http", "tcp", "command") if data.get(kind) is not None]
            if len(given) != 1:
                raise ValueError("give exactly one of http, tcp and command")
        return data

    @property
    def name(self) -> str:
        """Return what is sampled, for logs."""
        if self.http is not None:
            return f"http {self.http}"
        return f"tcp {self.tcp}" if self.tcp is not None else "command " + " ".join(self.command or ())


_KEPT_SAMPLES = 20


class Sample(Frozen):
    """
    One look at a service.

    :param at: when it was taken, for people; judging uses elapsed time, which no clock change can bend
    :param seconds: how long the answer took
    :param detail: what was seen, in a few words
    :param unknown: whether it says nothing about the service, since what failed is on our side: the resolver
        of host names, the network, a limit of this machine. It is no good sample, and no bad one.
    """

    at: datetime
    ok: bool
    seconds: float
    detail: str
    unknown: bool = False


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
        self.good = self.bad = self.unknown = 0
        self.row = 0  # good ones in a row, up to now

    def see(self, sample: Sample) -> None:
        """Take note of a sample without counting it."""
        self._samples.append(sample)
        if not sample.unknown:
            self.row = self.row + 1 if sample.ok else 0

    def count(self, sample: Sample, elapsed: float) -> None:
        """Count a sample that was seen, and was complete after ``elapsed`` seconds."""
        if sample.unknown:
            self.unknown += 1
        elif sample.ok:
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
        """Return what the last sample saw that was not good."""
        return next((sample.detail for sample in reversed(self._samples) if not sample.ok), "none")

    @property
    def counted(self) -> str:
        """Return how many there were of each kind."""
        unknown = f", {self.unknown} could not be taken" if self.unknown else ""
        return f"{self.good} good and {self.bad} bad samples{unknown}"

    def verdict(self, healthy: bool, reason: str) -> Verdict:
        """Return the verdict, with what it is based on."""
        samples = tuple(self._samples)
        return Verdict(healthy=healthy, reason=reason, good=self.good, bad=self.bad, samples=samples)


class Judge:
    """
    Judges the samples of one check; the first verdict stays.

    Healthy after ``healthy_after`` good samples in a row. Unhealthy when the bad samples of the last
    ``window`` exceed ``failures``, or when ``timeout`` is over: also of unknown samples, since a release
    that nobody could look at was not seen to be healthy. Times are seconds since the watch began.
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
                f"({tally.counted}); the last that was not good: {tally.last_bad()}",
            )
        return self.verdict

    def progress(self) -> str:
        """Return where the judging stands, for a log line."""
        return f"{self._tally.row} of {self._check.healthy_after} good in a row, {self._tally.bad} bad so far"

    def _decide(self, healthy: bool, reason: str) -> Verdict:
        self.verdict = self._tally.verdict(healthy, reason)
        return self.verdict


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
    What a rollback needs of an alarm's event. A user who can create asset events can create any.

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
        # A good sample is no news, however many bad ones came before it; an unknown one neither.
        excess = None if sample.ok or sample.unknown else self._tally.excess(elapsed)
        return self._tally.verdict(False, excess) if excess else None
