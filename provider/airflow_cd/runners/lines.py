"""Output as it comes, cut into lines."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

_LONGEST_LINE = 64 * 1024
_TAIL_LINES = 20


class Lines:
    """
    Cuts a stream of bytes into lines of text and remembers the last ones.

    :param on_line: gets each line, without its end
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """Return the last lines, at most 20."""
        return tuple(self._tail)

    def feed(self, chunk: bytes, final: bool = False) -> None:
        """Take more bytes, and hand on the lines that are whole now."""
        text = self._rest + self._decode(chunk, final)
        *lines, self._rest = text.replace("\r\n", "\n").split("\n")
        for line in lines:
            self._emit(self._cut(line))
        self._rest = self._cut(self._rest)

    def close(self) -> None:
        """Hand on what is left of a last line without an end."""
        self.feed(b"", final=True)
        if self._rest:
            self._emit(self._rest)
            self._rest = ""

    def _cut(self, line: str) -> str:
        """Emit what exceeds the longest line, piece by piece, and return the rest."""
        while len(line) > _LONGEST_LINE:
            self._emit(line[:_LONGEST_LINE])
            line = line[_LONGEST_LINE:]
        return line

    def _emit(self, line: str) -> None:
        # A progress bar rewrites its line; what stood there last is what counts.
        shown = line.rstrip("\r").rpartition("\r")[2]
        self._tail.append(shown)
        self._on_line(shown)


class LimitedLines:
    """
    Hands lines on until they are too long together; of the rest, only the last ones, in the end.

    :param on_line: gets the lines
    :param longest: characters at most
    """

    def __init__(self, on_line: Callable[[str], None], longest: int) -> None:
        self._on_line, self._longest, self._left = on_line, longest, longest
        self._left_out = 0
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def add(self, line: str) -> None:
        """Take one more line."""
        if not self._left_out and len(line) < self._left:
            self._left -= len(line) + 1
            self._on_line(line)
            return
        if not self._left_out:
            self._on_line(
                f"... the output is longer than {self._longest} bytes ([cd] command_log_bytes); what "
                "follows is left out"
            )
        self._left_out += 1
        self._tail.append(line)

    def close(self) -> None:
        """Hand on the last lines, if some were left out."""
        if self._left_out:
            self._on_line(f"... {self._left_out} lines are not in this log; the last of them:")
            for line in self._tail:
                self._on_line(line)
