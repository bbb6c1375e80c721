"""Prints tables and plain text to a terminal, a pipe or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from rich.cells import cell_len

from airflow_cd.model.text import printable

_GAP = "  "
_INDENT = "  "
_EMPTY = ("", "-")


class Column(NamedTuple):
    """
    A column of a table.

    :param title: what its cells are, in capitals
    :param text: whether its cells are free text, which may be wrapped at spaces
    """

    title: str
    text: bool = False


Row = Sequence[str]
_T = TypeVar("_T")


def table_lines(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """
    Yield the lines of a table.

    :param rows: their cells are on one line each
    :param width: of the terminal in characters; ``None`` where lines have no limit
    """
    if width is None:
        return _aligned([[column.title] for column in columns], rows)
    texts = [number for number, column in enumerate(columns) if column.text]
    for kept in range(len(texts), -1, -1):
        below = texts[kept:]
        beside = [number for number in range(len(columns)) if number not in below]
        cells = [_only(beside, row) for row in rows]
        for split in (False, True):
            titles = [_title(columns[number], split) for number in beside]
            if _total(titles, cells) <= width:
                return _folded(columns, rows, titles, (beside, below), width)
    return _stacked(columns, rows, width)


def _folded(
    columns: Sequence[Column],
    rows: Sequence[Row],
    titles: Sequence[Sequence[str]],
    places: tuple[Sequence[int], Sequence[int]],
    width: int,
) -> Iterator[str]:
    """
    Yield a table of some columns, with the texts of the others below each row.

    :param titles: lines of the titles of the columns that stay
    :param places: numbers of the columns that stay, and of those below
    """
    beside, below = places
    indent = max((len(columns[number].title) for number in below), default=0)
    height = max(map(len, titles))
    lines = list(_aligned(titles, [_only(beside, row) for row in rows]))
    yield from lines[:height]
    for row, line in zip(rows, lines[height:], strict=True):
        yield line
        for number in below:
            if row[number] not in _EMPTY:
                label = _INDENT + _padded(columns[number].title, indent)
                yield from _labelled(label, row[number].split(), width)


def _title(column: Column, split: bool) -> list[str]:
    return column.title.split() if split else [column.title]


def _stacked(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Iterator[str]:
    """Yield a block for each row: one line for each cell, or more where free text is long."""
    indent = max(len(column.title) for column in columns)
    for number, row in enumerate(rows):
        if number:
            yield ""
        for column, cell in zip(columns, row, strict=True):
            if cell:
                words = cell.split() if column.text else [cell]
                yield from _labelled(_padded(column.title, indent), words, width)


def _labelled(label: str, words: Sequence[str], width: int) -> Iterator[str]:
    """Yield a label and its text; where a word is too long to stand beside the label, below it."""
    indent = " " * (len(label) + len(_GAP))
    longest = max(map(cell_len, words))
    if len(indent) + longest <= width:
        first, *others = _wrapped(words, width - len(indent))
        yield f"{label}{_GAP}{first}"
    else:
        yield label.rstrip()
        indent = _INDENT * 2 if len(_INDENT) * 2 + longest <= width else ""
        others = _wrapped(words, width - len(indent))
    for line in others:
        yield indent + line


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    lines = [words[0]]
    for word in words[1:]:
        if cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _aligned(titles: Sequence[Sequence[str]], rows: Sequence[Row]) -> Iterator[str]:
    """
    Yield titles and rows with aligned columns.

    :param titles: lines of each title
    """
    widths = _widths(titles, rows)
    height = max(map(len, titles))
    heads = [[title[line] if line < len(title) else "" for title in titles] for line in range(height)]
    for row in (*heads, *rows):
        cells = (_padded(cell, width) for cell, width in zip(row, widths, strict=True))
        yield _GAP.join(cells).rstrip()


def _total(titles: Sequence[Sequence[str]], rows: Sequence[Row]) -> int:
    return sum(_widths(titles, rows)) + len(_GAP) * (len(titles) - 1)


def _widths(titles: Sequence[Sequence[str]], rows: Sequence[Row]) -> list[int]:
    return [
        max(map(cell_len, (*title, *(row[number] for row in rows)))) for number, title in enumerate(titles)
    ]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _only(numbers: Sequence[int], cells: Sequence[_T]) -> list[_T]:
    return [cells[number] for number in numbers]


# What a shell reports of a program that SIGPIPE ended.
_CLOSED = 141


def say(text: str) -> None:
    """
    Print lines; characters that could disturb a terminal are replaced.

    :raises SystemExit: standard output cannot be written; with 141 when its reader closed it
    """
    _write("".join(f"{harmless(line.expandtabs())}\n" for line in text.splitlines()))


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """
    Print a table: one line for each row, unless a terminal is too narrow for that.

    :raises SystemExit: standard output cannot be written; with 141 when its reader closed it
    """
    cells = [[harmless(" ".join(cell.split())) for cell in row] for row in rows]
    _write("".join(f"{line}\n" for line in table_lines(columns, cells, _width())))


def harmless(line: str) -> str:
    """Return a line without what could steer a terminal."""
    return printable(line, len(line))


def _write(text: str) -> None:
    if sys.stdout is None:  # closed by the caller of the program
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(_CLOSED)
    except OSError as error:
        _give_up(f"error: cannot write to standard output: {error.strerror}")


def _give_up(code: int | str) -> NoReturn:
    # Python flushes standard output once more at its end, and would print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code) from None


def _width() -> int | None:
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns
