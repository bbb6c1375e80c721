"""The log of a container with the times its cluster puts into it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ")
_TIME_BYTES = 40
# Container runtimes cut long lines (Docker and containerd after 16 KiB, CRI-O after 8), and older clusters
# put a time before each piece.
_PIECE_BYTES = 8192


class TimestampedLines:
    """Takes the times out of a log, read from the beginning of a line."""

    def __init__(self) -> None:
        self._rest = b""
        self._length = 0  # of the line so far
        self._timed = False  # just now
        self._second = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """
        Take more bytes; yield pieces of what the container wrote, each with the second it was written in.

        A time that is not whole is kept until more comes.
        """
        data, at = self._rest + chunk, 0
        while at < len(data):
            if self._length % _PIECE_BYTES == 0 and not self._timed:
                found = _TIME.match(data, at)
                if found is not None:
                    self._second = _second_of(found)
                    self._timed, at = True, found.end()
                    continue
                if len(data) - at < _TIME_BYTES and b"\n" not in data[at:]:
                    break
            room = _PIECE_BYTES - self._length % _PIECE_BYTES
            end = data.find(b"\n", at, at + room) + 1 or min(at + room, len(data))
            piece, at = data[at:end], end
            self._length = 0 if piece.endswith(b"\n") else self._length + len(piece)
            self._timed = False
            yield self._second, piece
        self._rest = data[at:]


def _second_of(time: re.Match[bytes]) -> int:
    moment, zone = time.group(1).decode(), time.group(2).decode()
    return int(datetime.fromisoformat(moment + zone.replace("Z", "+00:00")).timestamp())
