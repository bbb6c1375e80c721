"""Other people's words, on a line of a log, a terminal or a page."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_cd.model.text import printable

LONGEST = 50


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x9b31m", "\ufffd[2J\ufffd31m"),
        ("one\ntwo\r\x00three\x85four\u2028five", "one\ufffdtwo\ufffd\ufffdthree\ufffdfour\ufffdfive"),
        ("\u202egnp.exe \u2066x\u2069\u061c\u200f", "\ufffdgnp.exe \ufffdx\ufffd\ufffd\ufffd"),
        ("a\U000e0041\U000e007f\u2060\ufeffb", "a\ufffd\ufffd\ufffd\ufffdb"),
        ("half \udcff", "half \ufffd"),
        ("é, 日本, שלום, 👩‍👩‍👧", "é, 日本, שלום, 👩‍👩‍👧"),
        ("x" * 51, "x" * 49 + "…"),
        ("x" * 50, "x" * 50),
        ("", ""),
    ],
)
def test_what_could_disturb_is_replaced(text: str, shown: str) -> None:
    assert printable(text, LONGEST) == shown


@given(st.text(st.characters()))
def test_whatever_it_is_it_is_one_short_line_that_can_be_written(text: str) -> None:
    shown = printable(text, LONGEST)
    assert len(shown) <= LONGEST
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")]
    assert printable(shown, LONGEST) == shown
