"""Windows, also in the nights when clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_cd.model.window import Window, closed_because, is_open

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo"]
BERLIN = ZoneInfo("Europe/Berlin")


def window(**values: str) -> Window:
    return Window.model_validate({"duration": "1h", "timezone": "Europe/Berlin", **values})


def berlin(*when: int, fold: int = 0) -> datetime:
    return datetime(*when, tzinfo=BERLIN, fold=fold)  # type: ignore[arg-type,misc]


def test_no_window_is_open() -> None:
    assert is_open([], berlin(2026, 1, 1))


def test_the_weekend_is_denied_and_the_next_opening_is_told() -> None:
    weekend = window(deny="0 18 * * FRI", duration="62h")
    assert is_open([weekend], berlin(2026, 11, 20, 17, 59))
    closed = closed_because([weekend], berlin(2026, 11, 21, 12))
    assert closed is not None
    assert closed.opens_at == berlin(2026, 11, 23, 8)
    assert "0 18 * * FRI" in closed.reason and "2026-11-23 08:00 CET" in closed.reason
    assert is_open([weekend], berlin(2026, 11, 23, 8))


def test_an_allow_window_closes_the_rest() -> None:
    office = window(allow="0 9 * * MON-FRI", duration="8h")
    assert is_open([office], berlin(2026, 11, 20, 10))
    closed = closed_because([office], berlin(2026, 11, 20, 18))
    assert closed is not None and closed.opens_at == berlin(2026, 11, 23, 9)


def test_deny_beats_allow() -> None:
    both = [window(allow="0 9 * * *", duration="8h"), window(deny="0 12 * * *")]
    assert is_open(both, berlin(2026, 11, 20, 11))
    closed = closed_because(both, berlin(2026, 11, 20, 12, 30))
    assert closed is not None and closed.opens_at == berlin(2026, 11, 20, 13)


def test_what_never_opens_says_so() -> None:
    # A day is not enough: the one on which the clocks go back has 25 hours.
    closed = closed_because([window(deny="0 0 * * *", duration="25h")], berlin(2026, 3, 1))
    assert closed is not None and closed.opens_at is None


@pytest.mark.timeout(120)  # looking at each of the 576,000 windows takes half an hour
def test_the_search_for_an_opening_ends_soon_also_in_many_short_windows() -> None:
    always = window(deny="* * * * *", duration="1m")
    closed = closed_because([always], berlin(2026, 3, 1))
    assert closed is not None and closed.opens_at is None


def test_a_start_the_clocks_skip_happens_when_they_go_on() -> None:
    # On 2026-03-29 Berlin's clocks go from 02:00 to 03:00.
    skipped = window(deny="30 2 * * *")
    assert is_open([skipped], berlin(2026, 3, 29, 1, 59))
    assert not is_open([skipped], berlin(2026, 3, 29, 3, 0))
    assert not is_open([skipped], berlin(2026, 3, 29, 3, 59))
    assert is_open([skipped], berlin(2026, 3, 29, 4, 0))


def test_a_start_that_comes_twice_happens_once() -> None:
    # On 2026-10-25 Berlin's clocks go from 03:00 back to 02:00.
    twice = window(deny="30 2 * * *", duration="30m")
    assert not is_open([twice], berlin(2026, 10, 25, 2, 45, fold=0))
    assert is_open([twice], berlin(2026, 10, 25, 2, 0, fold=1))
    assert is_open([twice], berlin(2026, 10, 25, 2, 45, fold=1))


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(1, 23),
)
@settings(max_examples=150)
def test_once_a_day_and_for_its_duration_whatever_the_clocks_do(
    zone: str, moment: datetime, hour: int, minute: int, hours: int
) -> None:
    one = Window(deny=f"{minute} {hour} * * *", duration=timedelta(hours=hours), timezone=zone)
    now = moment.replace(tzinfo=timezone.utc)
    start = one.next_start(now)
    assert now < start <= now + timedelta(hours=25, minutes=31)
    assert one.span(start) == (start, start + one.duration)
    assert one.span(start + one.duration - timedelta(seconds=1)) == (start, start + one.duration)
    following = one.next_start(start)
    assert timedelta(hours=22, minutes=29) <= following - start <= timedelta(hours=25, minutes=31)
    closed = closed_because([one], start)
    assert closed is not None and closed.opens_at is not None
    assert is_open([one], closed.opens_at)
    assert not is_open([one], closed.opens_at - timedelta(seconds=1))


@pytest.mark.parametrize(
    "values", [{}, {"allow": "0 9 * * *", "deny": "0 9 * * *"}, {"deny": "0 0 * * *", "duration": "0s"}]
)
def test_senseless_windows_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one|no time at all"):
        window(**values)
