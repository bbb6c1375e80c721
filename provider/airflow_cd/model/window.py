"""When an environment may be deployed to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, model_validator

from airflow_cd.model.base import Duration, Frozen, format_duration
from airflow_cd.model.freeze import Freeze
from airflow_cd.model.wall_clock import ZoneName, instant, local

_SEARCHED = timedelta(days=400)
# Windows of a minute, every minute, would be searched through for half an hour.
_MOST_WINDOWS = 500
# No zone has moved its clocks by more than this at once in living memory.
_LARGEST_SHIFT = timedelta(hours=3)


def _valid_cron(expression: str) -> str:
    """Return the expression. :raises ValueError: it is not a cron expression of five fields"""
    from croniter import croniter

    if len(expression.split()) != 5 or not croniter.is_valid(expression):
        raise ValueError("is not a cron expression; write five fields: minute hour day month weekday")
    return expression


# Five fields: minute hour day month weekday.
Cron = Annotated[str, AfterValidator(_valid_cron)]


class Window(Frozen):
    """
    A recurring span of time in which deployments are allowed or denied.

    Exactly one of ``allow`` and ``deny`` is given. A span lasts ``duration`` of elapsed time, whatever the
    clocks do meanwhile. A start the clocks skip happens when they go on. One that comes twice happens the
    first time, but both times when the expression's hour is ``*`` or ``*/n``: that means every hour, and the
    night has one more.

    :param allow: cron expression of the starts; outside all ``allow`` windows nothing is deployed
    :param deny: cron expression of the starts; deny beats allow
    :param duration: how long each span lasts
    :param timezone: IANA zone the cron expression is read in
    """

    allow: Cron | None = None
    deny: Cron | None = None
    duration: Duration
    timezone: ZoneName = "UTC"

    @model_validator(mode="after")
    def _one_kind(self) -> Window:
        if (self.allow is None) == (self.deny is None):
            raise ValueError("give exactly one of allow and deny")
        if not self.duration:
            raise ValueError("lasts no time at all; give a duration above 0")
        return self

    @property
    def expression(self) -> str:
        """Return the cron expression, of whichever kind."""
        return self.allow or self.deny or ""

    @property
    def kind(self) -> str:
        """Return what happens to deployments in it."""
        return "allowed" if self.allow else "denied"

    @property
    def shown(self) -> str:
        """Return for how long, and when."""
        return f"for {format_duration(self.duration)} from {self.expression!r} ({self.timezone})"

    def span(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Return begin and end of the span ``now`` lies in, or ``None`` when it lies in none."""
        start = max(self._last_start(now, fold) for fold in self._folds())
        return (start, start + self.duration) if now < start + self.duration else None

    def next_start(self, now: datetime) -> datetime:
        """Return the first start after ``now``."""
        return min(self._first_start(now, fold) for fold in self._folds())

    def _folds(self) -> tuple[int, ...]:
        """Return which of two equal times on the clock are starts: 0 the first one, 1 the second one."""
        return (0, 1) if self.expression.split()[1].startswith("*") else (0,)

    def _last_start(self, now: datetime, fold: int) -> datetime:
        crons = self._crons(now + _LARGEST_SHIFT)
        while True:
            start = instant(crons.get_prev(datetime), self.timezone, fold)
            if start <= now:
                return start

    def _first_start(self, now: datetime, fold: int) -> datetime:
        crons = self._crons(now - _LARGEST_SHIFT)
        while True:
            start = instant(crons.get_next(datetime), self.timezone, fold)
            if start > now:
                return start

    def _crons(self, around: datetime):  # type: ignore[no-untyped-def]  # croniter is imported when used
        from croniter import croniter

        # Reckoned in wall clock time, which knows no shifts; instant() places it in real time.
        return croniter(self.expression, around.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None))


class Closed(NamedTuple):
    """
    Why nothing may be deployed now.

    :param opens_at: when it may be again; ``None`` when that is not within 400 days, or not within 500
        windows one after the other
    """

    reason: str
    opens_at: datetime | None


def is_open(windows: Sequence[Window], now: datetime, freezes: Sequence[Freeze] = ()) -> bool:
    """Tell whether deployments are allowed at the aware time ``now``."""
    return _closing(windows, freezes, now) is None


def closed_because(windows: Sequence[Window], now: datetime, freezes: Sequence[Freeze] = ()) -> Closed | None:
    """Return why deployments are not allowed at the aware time ``now``, or ``None`` when they are."""
    closing = _closing(windows, freezes, now)
    if closing is None:
        return None
    at = closing[1]
    for _ in range(_MOST_WINDOWS):
        if at - now >= _SEARCHED:
            break
        still = _closing(windows, freezes, at)
        if still is None:
            return Closed(closing[0], at)
        at = still[1]
    return Closed(closing[0], None)


def _closing(
    windows: Sequence[Window], freezes: Sequence[Freeze], now: datetime
) -> tuple[str, datetime] | None:
    """Return the reason, and the next time at which it may no longer hold."""
    for freeze in freezes:
        if freeze.holds(now):
            return freeze.told, freeze.ends_at
    for window in windows:
        if window.deny and (span := window.span(now)):
            return f"denied {window.shown}, until {local(span[1], window.timezone)}", span[1]
    allowing = [window for window in windows if window.allow]
    if not allowing or any(window.span(now) for window in allowing):
        return None
    shown = " or ".join(window.shown for window in allowing)
    return f"allowed only {shown}", min(window.next_start(now) for window in allowing)
