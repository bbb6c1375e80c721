"""
What N approvals that wait cost: the scheduler's CPU, and the time from an answer until its task has gone on.

Each waits in a DAG run of its own. Compared with the same Airflow while only those wait that are answered.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from harness.airflow import RunningAirflow
from harness.runs import Run
from tests.support.databases import metadata_database

from benchmarks.parking import APPROVE, Parking
from benchmarks.report import Result, report

LATENCY_LIMIT = 3.0
CPU_LIMIT = 3.0
ANSWERS = 10
IDLE_SECONDS = 30
# More tasks at a time than a small machine has cores only wait for the API server while they park.
CONFIG = {"AIRFLOW__CORE__PARALLELISM": "4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--approvals", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        metadata_database() as database,
        RunningAirflow(Path(folder), sql_alchemy_conn=database, extra_config=CONFIG) as airflow,
    ):
        parking = Parking(airflow, "parked")
        few = parking.park(ANSWERS)
        airflow.wait_until_noted(few[-1].run_id, APPROVE)
        idle_cpu = scheduler_cpu(airflow)
        fast = answer(few)
        started = time.monotonic()
        many = parking.park(args.approvals)
        print(f"{args.approvals} approvals parked within {time.monotonic() - started:.0f} s")
        parking.wait_for_slots()
        busy_cpu = scheduler_cpu(airflow)
        slow = answer(random.sample(many, ANSWERS))
    n = args.approvals
    report(
        [
            Result(
                "parked", f"answer to end of task, {n} parked / {ANSWERS}", slow, fast, "s", LATENCY_LIMIT
            ),
            Result(
                "parked", f"scheduler CPU, {n} parked / {ANSWERS}", busy_cpu, idle_cpu, "cores", CPU_LIMIT
            ),
        ],
        args.json,
    )


def scheduler_cpu(airflow: RunningAirflow) -> float:
    """Return how many cores the scheduler and its idle workers use while nothing happens."""
    pid = airflow.components["scheduler"].pid
    assert pid is not None
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    before, started = _cpu(processes), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (_cpu(processes) - before) / (time.monotonic() - started)


def answer(runs: Sequence[Run]) -> float:
    """Approve one after the other; return the median seconds until the task has ended."""
    seconds = []
    for run in runs:
        started = time.monotonic()
        run.answer(APPROVE, "Approve")
        run.wait_for_task(APPROVE, "success", timeout=120)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes if process.is_running())


if __name__ == "__main__":
    main()
