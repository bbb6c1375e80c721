"""Windows in the nights when clocks change, in five zones, against a reckoning minute by minute."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_cd.model.window import Window, closed_because

MINUTE = timedelta(minutes=1)
MINUTES = {"0": {0}, "15": {15}, "30": {30}, "45": {45}, "*/20": {0, 20, 40}}
HOURS = {
    "*": set(range(24)),
    "*/2": set(range(0, 24, 2)),
    **{str(hour): {hour} for hour in (0, 1, 2, 3, 23)},
    "1-3": {1, 2, 3},
}
# Zone, and the UTC minute at which its clocks jump. Lord Howe's by half an hour, Sao Paulo's at midnight.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1)),
    ("America/New_York", datetime(2026, 3, 8, 7)),
    ("America/New_York", datetime(2026, 11, 1, 6)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30)),
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2)),
    ("Africa/Casablanca", datetime(2026, 3, 22, 2)),
]


def local(moment: datetime, zone: str) -> datetime:
    return moment.replace(tzinfo=timezone.utc).astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def starts(minute: str, hour: str, zone: str, begin: datetime, minutes: int) -> list[datetime]:
    """Walk through the minutes (UTC), and note when the clock on the wall says that a window starts."""
    every_hour = hour.startswith("*")
    found, seen = [], set[datetime]()
    latest = local(begin - MINUTE, zone)
    for n in range(minutes):
        now = begin + n * MINUTE
        wall = local(now, zone)
        # What the clock went over since the last minute: one time, or more where it jumped.
        passed = [latest + k * MINUTE for k in range(1, (wall - latest) // MINUTE)] if wall > latest else []
        matching = [
            one for one in (*passed, wall) if one.minute in MINUTES[minute] and one.hour in HOURS[hour]
        ]
        if any(every_hour or one not in seen for one in matching):
            found.append(now)
        seen.update(matching)
        latest = wall
    return found


@pytest.mark.parametrize(("zone", "jump"), CHANGES)
def test_the_clocks_jump_where_these_tests_say(zone: str, jump: datetime) -> None:
    assert local(jump, zone) - local(jump - MINUTE, zone) != MINUTE


@given(
    st.sampled_from(CHANGES),
    st.sampled_from(sorted(MINUTES)),
    st.sampled_from(sorted(HOURS)),
    st.integers(1, 180),
    st.sampled_from(["allow", "deny"]),
    st.integers(-300, 300),
)
@settings(max_examples=150)
def test_as_the_clock_on_the_wall_says(
    change: tuple[str, datetime], minute: str, hour: str, lasts: int, kind: str, offset: int
) -> None:
    zone, jump = change
    expression, moment = f"{minute} {hour} * * *", jump + offset * MINUTE
    window = Window.model_validate({kind: expression, "duration": timedelta(minutes=lasts), "timezone": zone})
    begin = moment - timedelta(hours=30)
    expected = starts(minute, hour, zone, begin, minutes=30 * 60 + 1)
    inside = any(start <= moment < start + lasts * MINUTE for start in expected)
    now = moment.replace(tzinfo=timezone.utc)
    closed = closed_because([window], now)
    assert (closed is not None) == (inside if kind == "deny" else not inside)
    if closed is not None and closed.opens_at is not None:
        assert closed.opens_at > now
        assert closed_because([window], closed.opens_at) is None
        assert closed_because([window], closed.opens_at - timedelta(seconds=1)) is not None


@given(st.sampled_from(CHANGES), st.integers(-600, 600))
@settings(max_examples=60)
def test_what_is_denied_every_hour_is_denied_in_the_hour_that_comes_twice(
    change: tuple[str, datetime], offset: int
) -> None:
    zone, jump = change
    always = Window.model_validate({"deny": "0 * * * *", "duration": "1h", "timezone": zone})
    half = Window.model_validate({"deny": "*/30 * * * *", "duration": "30m", "timezone": zone})
    now = (jump + offset * MINUTE).replace(tzinfo=timezone.utc)
    # Lord Howe's half an hour more is no hour of its own: only what starts every half hour covers it.
    assert half.span(now)
    assert always.span(now) or zone == "Australia/Lord_Howe"
