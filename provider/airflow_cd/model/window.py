"""When an environment may be deployed to: windows, freezes, and wall clocks of time zones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, StringConstraints, model_validator

from airflow_cd.model.base import Duration, Frozen, format_duration

_MINUTE = timedelta(minutes=1)


def instant(wall: datetime, zone_name: str, fold: int = 0) -> datetime:
    """
    Return when the clocks of the zone show this time; of a time they skip, when they go on.

    :param wall: without a time zone
    :param fold: of a time that comes twice, 0 for the first and 1 for the second one
    """
    zone = ZoneInfo(zone_name)
    found = wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)
    if found.astimezone(zone).replace(tzinfo=None) == wall:
        return found
    # Skipped. Read with the offset from before (fold 0), it lies after the jump: go back to that.
    found = wall.replace(tzinfo=zone, fold=0).astimezone(timezone.utc)
    after = found.astimezone(zone).utcoffset()
    found = found.replace(second=0, microsecond=0)
    while (found - _MINUTE).astimezone(zone).utcoffset() == after:
        found -= _MINUTE
    return found


def local(time: datetime, zone_name: str) -> str:
    """Return an aware time as the clocks of the zone show it, with the zone's abbreviation."""
    return time.astimezone(ZoneInfo(zone_name)).strftime("%Y-%m-%d %H:%M %Z")


def _valid_zone(name: str) -> str:
    """
    Return the name.

    :raises ValueError: it is not an IANA time zone
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("is not a time zone; write an IANA name such as Europe/Berlin or UTC") from error
    return name


# An IANA time zone that this machine knows.
ZoneName = Annotated[str, AfterValidator(_valid_zone)]


_DAY_PATTERN = r"\d{4}-\d{2}-\d{2}"
MOMENT_PATTERN = rf"^{_DAY_PATTERN}([T ]\d{{2}}:\d{{2}}(:\d{{2}})?)?$"


def _moment(value: Any) -> str:
    text = value.isoformat() if isinstance(value, date) else value
    if isinstance(text, str) and re.match(MOMENT_PATTERN, text):
        try:
            datetime.fromisoformat(text)
            return text
        except ValueError:
            pass
    raise ValueError("is not a date; write 2026-12-24, or 2026-12-24 18:00, without an offset")


Moment = Annotated[str, BeforeValidator(_moment), StringConstraints(pattern=MOMENT_PATTERN)]


def with_written_dates(content: Any) -> Any:
    """
    Return what a services file says, with the dates of its freezes as the strings that :class:`Freeze` takes.

    YAML makes dates of them, which JSON, that big files are remembered as, does not know.
    """
    if not isinstance(content, dict):
        return content
    written = {**content}
    if isinstance(content.get("freezes"), list):
        written["freezes"] = [_written(freeze) for freeze in content["freezes"]]
    if isinstance(content.get("services"), list):
        written["services"] = [with_written_dates(service) for service in content["services"]]
    if "defaults" in content:
        written["defaults"] = with_written_dates(content["defaults"])
    return written


def _written(freeze: Any) -> Any:
    if not isinstance(freeze, dict):
        return freeze
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in freeze.items()}


class Freeze(Frozen):
    """
    A span of time, once, in which nothing is deployed. Rolling back is never frozen.

    :param start: first day, or date and time, as the clocks of ``timezone`` show it
    :param end: last day, which belongs to the freeze, or date and time at which it is over
    :param reason: why; shown wherever something waits for the end
    :param timezone: IANA zone of both
    :param environments: names of the environments that are frozen; empty means all of them
    """

    start: Moment
    end: Moment
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    timezone: ZoneName = "UTC"
    environments: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _lasts(self) -> Freeze:
        if self.starts_at >= self.ends_at:
            raise ValueError("ends before it starts; `end` is a later date, or the same day")
        return self

    @property
    def starts_at(self) -> datetime:
        """Return the aware time of its beginning: of a time that comes twice, the first one."""
        return instant(_wall(self.start, whole_day=False), self.timezone, fold=0)

    @property
    def ends_at(self) -> datetime:
        """Return the aware time at which it is over: of a time that comes twice, the second one."""
        return instant(_wall(self.end, whole_day=True), self.timezone, fold=1)

    @property
    def told(self) -> str:
        """Return the reason and the end."""
        return f"frozen until {local(self.ends_at, self.timezone)}: {self.reason}"

    def holds(self, now: datetime) -> bool:
        """Tell whether it is frozen at the aware time ``now``."""
        return self.starts_at <= now < self.ends_at

    def concerns(self, environment: str) -> bool:
        """Tell whether the environment of this name is frozen with it."""
        return not self.environments or environment in self.environments


def _wall(moment: str, *, whole_day: bool) -> datetime:
    if re.match(f"^{_DAY_PATTERN}$", moment):
        day = date.fromisoformat(moment) + timedelta(days=1 if whole_day else 0)
        return datetime.combine(day, time())
    return datetime.fromisoformat(moment)


_SEARCHED = timedelta(days=400)
# Windows of a minute, every minute, would be searched through for half an hour.
_MOST_WINDOWS = 500
# No zone has moved its clocks by more than this at once in living memory.
_LARGEST_SHIFT = timedelta(hours=3)


def _valid_cron(expression: str) -> str:
    """
    Return the expression.

    :raises ValueError: it is not a cron expression of five fields
    """
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
