"""Times are taken out of logs, wherever they are cut."""

from __future__ import annotations

import pytest

from airflow_cd.runners.kubernetes.logs import TimestampedLines

TIME = b"2026-11-25T13:49:38.206710001Z "
SECOND = 1795614578


def read(log: bytes, size: int) -> list[tuple[int, bytes]]:
    """Return the pieces, those of one second put together."""
    records, found = TimestampedLines(), []  # type: ignore[var-annotated]
    for at in range(0, len(log), size):
        for second, piece in records.feed(log[at : at + size]):
            if found and found[-1][0] == second:
                piece = found.pop()[1] + piece
            found.append((second, piece))
    return found


@pytest.mark.parametrize("size", [1, 7, 31, 64, 100_000])
def test_nothing_but_times_is_taken_out(size: int) -> None:
    text = [b"10%\r100%\n", b"\n", b"\xff\xfe\n", TIME + b"was said\n", b"end of it, which has no end"]
    assert read(b"".join(TIME + line for line in text), size) == [(SECOND, b"".join(text))]


@pytest.mark.parametrize("size", [1, 4096, 100_000])
@pytest.mark.parametrize("cut", [8192, 16384])
def test_times_within_long_lines_are_taken_out_too(size: int, cut: int) -> None:
    line = b"x" * 40_000 + b"\n"
    pieces = [line[at : at + cut] for at in range(0, len(line), cut)]
    assert read(b"".join(TIME + piece for piece in pieces) + TIME + b"next\n", size) == [
        (SECOND, line + b"next\n")
    ]


def test_seconds_are_those_of_the_world_wherever_the_node_is() -> None:
    log = TIME + b"a\n" + b"2026-11-25T14:49:39+01:00 b\n"
    assert read(log, 100) == [(SECOND, b"a\n"), (SECOND + 1, b"b\n")]


def test_half_a_time_is_nothing_that_was_said() -> None:
    assert read(TIME + b"said\n" + TIME[:12], 100) == [(SECOND, b"said\n")]
