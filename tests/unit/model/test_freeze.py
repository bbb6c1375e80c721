"""Freezes: from which moment to which, and what is refused."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_cd.model.window import Freeze, Window, closed_because

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]


def freeze(start: object, end: object, zone: str = "Europe/Berlin") -> Freeze:
    return Freeze.model_validate({"start": start, "end": end, "timezone": zone, "reason": "Christmas"})


def utc(*when: int) -> datetime:
    return datetime(*when, tzinfo=timezone.utc)  # type: ignore[arg-type,misc]


def test_days_are_whole_days_and_the_last_one_belongs_to_it() -> None:
    christmas = freeze("2026-12-24", "2026-12-26")
    assert (christmas.starts_at, christmas.ends_at) == (utc(2026, 12, 23, 23), utc(2026, 12, 26, 23))
    assert not christmas.holds(utc(2026, 12, 23, 22, 59)) and christmas.holds(utc(2026, 12, 23, 23))
    assert christmas.holds(utc(2026, 12, 26, 22, 59)) and not christmas.holds(utc(2026, 12, 26, 23))


def test_what_yaml_makes_of_dates_is_understood() -> None:
    written = freeze("2026-12-24", "2026-12-26 12:00:00")
    assert freeze(date(2026, 12, 24), datetime(2026, 12, 26, 12)).ends_at == written.ends_at


def test_times_that_come_twice_or_never_freeze_for_longer() -> None:
    # In Berlin 2026-10-25 has 02:30 twice, 2026-03-29 has none.
    assert freeze("2026-10-25 02:30", "2026-10-26").starts_at == utc(2026, 10, 25, 0, 30)
    assert freeze("2026-10-24", "2026-10-25 02:30").ends_at == utc(2026, 10, 25, 1, 30)
    assert freeze("2026-03-28", "2026-03-29 02:30").ends_at == utc(2026, 3, 29, 1)


def test_the_opening_is_after_everything_that_closes() -> None:
    christmas = freeze("2026-12-24", "2026-12-26")
    weekend = Window.model_validate({"deny": "0 18 * * FRI", "duration": "62h", "timezone": "Europe/Berlin"})
    closed = closed_because([weekend], utc(2026, 12, 24, 12), [christmas])
    assert closed is not None
    assert closed.reason == "frozen until 2026-12-27 00:00 CET: Christmas"
    assert closed.opens_at == utc(2026, 12, 28, 7)  # Monday, 08:00 in Berlin


@given(
    st.sampled_from(ZONES),
    st.dates(date(2026, 1, 1), date(2027, 12, 1)),
    st.integers(0, 20),
    st.integers(0, 1439),
)
@settings(max_examples=150)
def test_frozen_while_the_calendar_on_the_wall_says_so(
    zone: str, start: date, days: int, minute: int
) -> None:
    last = start + timedelta(days=days)
    one = freeze(start.isoformat(), last.isoformat(), zone)
    begin = utc(start.year, start.month, start.day) - timedelta(days=2)
    for day in range(days + 5):
        now = begin + timedelta(days=day, minutes=minute)
        assert one.holds(now) == (start <= now.astimezone(ZoneInfo(zone)).date() <= last)


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("2026-12-26", "2026-12-24", "ends before it starts"),
        ("24.12.2026", "2026-12-26", "is not a date"),
        ("2026-02-30", "2026-12-26", "is not a date"),
        ("2026-12-24T00:00:00+01:00", "2026-12-26", "without an offset"),
        (20261224, "2026-12-26", "is not a date"),
    ],
)
def test_senseless_freezes_are_refused(start: object, end: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        freeze(start, end)


def test_a_freeze_is_for_the_environments_it_names_or_for_all() -> None:
    everywhere = freeze("2026-12-24", "2026-12-26")
    live = everywhere.model_copy(update={"environments": ("live",)})
    assert everywhere.concerns("live") is True and everywhere.concerns("staging") is True
    assert live.concerns("live") is True and live.concerns("staging") is False


def test_a_refused_date_says_what_to_write() -> None:
    with pytest.raises(
        ValueError, match=r"Value error, is not a date; write 2026-12-24, or .* without an offset \["
    ):
        freeze("soon", "2026-12-26")
