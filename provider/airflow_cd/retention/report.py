"""What a collection removed and kept: rows for a table, a log or JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Tally:
    """How many, and how many bytes together."""

    count: int = 0
    size: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.count + other.count, self.size + other.size)

    def __str__(self) -> str:
        return f"{self.count} ({format_size(self.size)})" if self.count else "-"


class Row(NamedTuple):
    """
    One kind of thing of one service; what belongs to no service has ``-`` for its name.

    :param removed: of releases, workspaces and decisions: moved to the trash; else gone for good
    :param why: why the others are kept, or what went wrong
    :param is_complete: whether nothing went wrong
    """

    service: str
    what: str
    removed: Tally = Tally()
    kept: Tally = Tally()
    why: str = ""
    is_complete: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**self._asdict(), "removed": asdict(self.removed), "kept": asdict(self.kept)}


def format_size(size: int) -> str:
    """Write a number of bytes for people."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def summed(reasons: Iterable[str]) -> str:
    """Return each reason with how often it is given, the most frequent one first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(reasons).most_common())
