"""How benchmarks print their results, and what counts as too slow."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def machine() -> dict[str, Any]:
    """Describe what the results were taken on; ``load`` is how many processes wanted a core just now."""
    return {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "airflow": version("apache-airflow"),
        "airflow_cd": version("airflow-provider-cd"),
    }


def report(results: list[Result], file: Path | None = None) -> None:
    """
    Print a table and one JSON line per result.

    :param file: gets a JSON object with ``machine`` and ``results``; those of other benchmarks stay in it
    :raises SystemExit: with code 1 when a limit is exceeded
    """
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
    rows = [
        {**asdict(result), "ratio": round(result.ratio, 3), "passed": result.passed} for result in results
    ]
    print("\n".join(json.dumps(row) for row in rows))
    if file:
        _write(rows, file)
    if not all(result.passed for result in results):
        raise SystemExit(1)


def _write(rows: list[dict[str, Any]], file: Path) -> None:
    before = json.loads(file.read_text())["results"] if file.exists() else []
    names = {row["name"] for row in rows}
    others = [row for row in before if row["name"] not in names]
    file.write_text(json.dumps({"machine": machine(), "results": [*others, *rows]}, indent=2) + "\n")
