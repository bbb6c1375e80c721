"""What conditions mean, and that a mistake in one is reported."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_cd.model.analysis import parse_condition


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("< 0.05", 0.0499, 0.05),
        ("<= 0.05", 0.05, 0.0501),
        ("> 10", 10.5, 10),
        (">= 99.9", 99.9, 99.89),
        ("== 0", 0, 0.001),
        ("!= 0", -1, 0),
        ("<-1.5e-3", -0.002, -0.001),
        ("> 10 and < 20", 15, 20),
        ("< 10 or > 20", 25, 15),
        ("< 1 or > 5 and < 6", 0, 7),
        ("> 5 and < 6 or < 1", 0.5, 3),
    ],
)
def test_a_condition_holds_for_what_it_says(text: str, good: float, bad: float) -> None:
    condition = parse_condition(text)
    assert condition.holds(good)
    assert not condition.holds(bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends where a comparison is expected"),
        ("0.05", "has '0.05' where a comparison is expected"),
        ("= 0.05", "no comparison '='"),
        ("=< 0.05", "no comparison '=<'"),
        ("<", "ends where a number is expected after '<'"),
        ("< five", "has 'five' where a number is expected"),
        ("< 5%", "where a number is expected"),
        ("< 5 percent", "has 'percent' where `and` or `or` is expected"),
        ("< 5 and", "ends after `and` or `or`"),
        ("< 5 < 6", "has '<' where `and` or `or` is expected"),
        ("< 5 && > 3", "has '&&' where `and` or `or` is expected"),
        ("result[0] < 5", "has 'result[0]' where a comparison is expected"),
        ("< 1.2.3", "where a number is expected"),
        ("< nan", "where a number is expected"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_condition(text)
    assert message in str(refused.value)


@given(st.text(alphabet="<>=!0123456789.eE+-andor %_", max_size=20))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    try:
        parse_condition(text).holds(1.0)
    except ValueError:
        pass


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_a_comparison_and_its_opposite_never_both_hold(value: float, limit: float) -> None:
    assert parse_condition(f"< {limit!r}").holds(value) != parse_condition(f">= {limit!r}").holds(value)
