"""The layout of tables: nothing is lost, and no word is cut, however wide or narrow the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from airflow_cd.cli.printing import Column, print_table, say, table_lines

COLUMNS = (Column("SERVICE"), Column("COMMIT AGE"), Column("COMMIT", text=True), Column("NOTE", text=True))
ROWS = [["hello", "3d 4h", "aaaaaaaa fix", "held by bob: prices"], ["shop", "2s", "-", ""]]


def lines(width: int | None, rows: list[list[str]] = ROWS) -> list[str]:
    return list(table_lines(COLUMNS, rows, width))


def test_what_fits_is_a_table() -> None:
    wide = [
        "SERVICE  COMMIT AGE  COMMIT        NOTE",
        "hello    3d 4h       aaaaaaaa fix  held by bob: prices",
        "shop     2s          -",
    ]
    assert lines(None) == wide
    assert lines(len(wide[1])) == wide


def test_a_title_is_split_first_then_the_last_text_moves_below() -> None:
    assert lines(50) == [
        "SERVICE  COMMIT  COMMIT        NOTE",
        "         AGE",
        "hello    3d 4h   aaaaaaaa fix  held by bob: prices",
        "shop     2s      -",
    ]
    assert lines(40) == [
        "SERVICE  COMMIT AGE  COMMIT",
        "hello    3d 4h       aaaaaaaa fix",
        "  NOTE  held by bob: prices",
        "shop     2s          -",
    ]
    assert lines(24) == [
        "SERVICE  COMMIT AGE",
        "hello    3d 4h",
        "  COMMIT  aaaaaaaa fix",
        "  NOTE    held by bob:",
        "          prices",
        "shop     2s",
    ]


def test_then_each_row_is_a_block() -> None:
    assert lines(14) == [
        "SERVICE",
        "    hello",
        "COMMIT AGE",
        "    3d 4h",
        "COMMIT",
        "    aaaaaaaa",
        "    fix",
        "NOTE",
        "    held by",
        "    bob:",
        "    prices",
        "",
        "SERVICE",
        "    shop",
        "COMMIT AGE  2s",
        "COMMIT      -",
    ]


def test_wide_characters_count_twice() -> None:
    assert lines(None, [["価格", "1s", "x", "y"]])[1] == "価格     1s          x       y"


def test_no_rows() -> None:
    assert lines(80, []) == lines(None, []) == ["SERVICE  COMMIT AGE  COMMIT  NOTE"]


WORDS = st.lists(st.text("abc価", min_size=1, max_size=30), max_size=8).map(" ".join)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS).map(list), max_size=4), st.integers(1, 120))
def test_nothing_is_lost_and_no_word_is_cut(rows: list[list[str]], width: int) -> None:
    shown = lines(width, rows)
    whole = [row[number] for row in rows for number in (0, 1)]
    words = [word for row in rows for number in (2, 3) for word in row[number].split()]
    assert set(words) <= {word for line in shown for word in line.split()}
    assert all(any(cell in line for line in shown) for cell in whole if cell)
    too_wide = max(width, *map(cell_len, [*whole, *words, *(column.title for column in COLUMNS)]))
    assert all(cell_len(line) <= too_wide for line in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines  of\ttext", "two lines of text"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        ("turned \u202eround", "turned \ufffdround"),
        ("[bold]no markup[/] :smile:", "[bold]no markup[/] :smile:"),
    ],
)
def test_a_cell_is_one_harmless_line(capsys: pytest.CaptureFixture[str], text: str, shown: str) -> None:
    print_table([Column("A"), Column("B")], [["a", text]])
    assert capsys.readouterr().out == f"A  B\na  {shown}\n"


def test_what_is_said_keeps_its_lines_and_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    say("ok     hello\n  [more]\x07")
    assert capsys.readouterr().out == "ok     hello\n  [more]\ufffd\n"


def test_a_terminal_of_another_encoding_gets_what_it_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import BytesIO, TextIOWrapper

    written = BytesIO()
    monkeypatch.setattr("sys.stdout", TextIOWrapper(written, "ascii"))
    say("préfix")
    assert written.getvalue() == b"pr?fix\n"


def test_a_closed_standard_output_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    print_table(COLUMNS, ROWS)
