"""How benchmarks print their results, and what counts as too slow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Result:
    """
    One measurement against its reference, taken in the same run.

    :param limit: the ratio that must not be exceeded
    :param limit_value: the absolute value that must not be exceeded, in ``unit``
    """

    name: str
    what: str
    value: float
    reference: float
    unit: str
    limit: float | None = None
    limit_value: float | None = None

    @property
    def ratio(self) -> float:
        return self.value / self.reference

    @property
    def passed(self) -> bool:
        within_ratio = self.limit is None or self.ratio <= self.limit
        return within_ratio and (self.limit_value is None or self.value <= self.limit_value)


def report(results: list[Result], file: Path | None = None) -> None:
    """Print a table and one JSON line per result. :raises SystemExit: with code 1 when a limit is exceeded"""
    table = Table("benchmark", "what", "measured", "reference", "ratio", "limit", "")
    for result in results:
        limit = f"{result.limit:g} x" if result.limit else f"{result.limit_value:g} {result.unit}"
        table.add_row(
            result.name,
            result.what,
            f"{result.value:.3g} {result.unit}",
            f"{result.reference:.3g} {result.unit}",
            f"{result.ratio:.2f} x",
            limit,
            "ok" if result.passed else "TOO SLOW",
        )
    Console(width=140).print(table)
    lines = [json.dumps({**asdict(result), "ratio": round(result.ratio, 3)}) for result in results]
    print("\n".join(lines))
    if file:
        file.write_text("\n".join(lines) + "\n")
    if not all(result.passed for result in results):
        raise SystemExit(1)
