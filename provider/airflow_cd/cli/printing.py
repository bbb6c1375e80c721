"""Writes what a command has to say: to a terminal, a pipe or a file, always as plain text."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from airflow_cd.cli.tables import Column, Row, table_lines
from airflow_cd.model.text import printable

# What a shell reports of a program that SIGPIPE ended.
_CLOSED = 141


def say(text: str) -> None:
    """
    Print lines; characters that could disturb a terminal are replaced.

    :raises SystemExit: standard output cannot be written; with 141 when its reader closed it
    """
    _write("".join(f"{_harmless(line.expandtabs())}\n" for line in text.splitlines()))


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """
    Print a table: one line for each row, unless a terminal is too narrow for that.

    :raises SystemExit: standard output cannot be written; with 141 when its reader closed it
    """
    cells = [[_harmless(" ".join(cell.split())) for cell in row] for row in rows]
    _write("".join(f"{line}\n" for line in table_lines(columns, cells, _width())))


def _harmless(line: str) -> str:
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
