"""
A thousand health checks that are watched at once: what they cost, and whether they are late.

Airflow's own trigger runner with one HealthTrigger per check, against the same requests by bare httpx in bare
asyncio, each in a process of its own, alternating. See :mod:`benchmarks.watching` for both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import Result, report

CPU_LIMIT = 2.0
LATE_LIMIT = 1.0
ROUNDS = 2
_WATCHING = [sys.executable, "-m", "benchmarks.watching"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checks", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with subprocess.Popen([*_WATCHING, "serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            taken = [
                (_watch("trigger", url, args.checks), _watch("loop", url, args.checks)) for _ in range(ROUNDS)
            ]
        finally:
            server.terminate()
    ours, bare = ([row[column] for row in taken] for column in (0, 1))
    report([_cpu(ours, bare, args.checks), _late(ours, bare)], args.json)


def _watch(what: str, url: str, checks: int) -> dict[str, Any]:
    argv = [*_WATCHING, what, "--url", url, "--checks", str(checks)]
    ran = subprocess.run(argv, capture_output=True, text=True)
    line = next((line for line in ran.stdout.splitlines() if line.startswith("RESULT")), None)
    if line is None:
        raise SystemExit(f"{what} measured nothing:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
    return result


def _cpu(ours: list[dict[str, Any]], bare: list[dict[str, Any]], checks: int) -> Result:
    def per_check_minute(runs: list[dict[str, Any]]) -> float:
        return statistics.median(run["cpu"] / run["seconds"] * 60 / checks for run in runs) * 1000  # type: ignore[no-any-return]

    what = f"CPU per check-minute of {checks} checks every 5 s, trigger / bare httpx loop"
    return Result("waiting", what, per_check_minute(ours), per_check_minute(bare), "ms", CPU_LIMIT)


def _late(ours: list[dict[str, Any]], bare: list[dict[str, Any]]) -> Result:
    late, reference = (statistics.median(run["late_p99"] for run in runs) for runs in (ours, bare))
    return Result(
        "lateness", "p99 of when a sample began, trigger / loop", late, reference, "s", None, LATE_LIMIT
    )


if __name__ == "__main__":
    main()
