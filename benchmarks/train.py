"""
A train of N services against as many tasks that do nothing.

The reference is a DAG of the same shape: a ``BashOperator("true")`` for each task that is started, an
``EmptyOperator``, which Airflow does not start, for each that is skipped, in the same layers, and as wide
as the train lets its services be deployed side by side. Also the CPU time of the scheduler. The services are
trivial (:mod:`benchmarks.trivial`), and run already in the version before.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import psutil
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.support.databases import metadata_database

from airflow_cd.targets.local.target import root_of, shutdown
from benchmarks.overhead import calm, timestamp
from benchmarks.report import Result, report
from benchmarks.trivial import TrivialFleet

LIMIT, CPU_LIMIT = 1.5, 1.5
LAYERS, PARALLEL = 4, 8
CONFIG = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
}

# As the train: N tasks that board, one departure, a chain of two tasks per service in its place, N that would
# go back, which are not started where all is well, and an arrival.
REFERENCE = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

LAYERS, WIDTH, PARALLEL = {layers}, {width}, {parallel}

with DAG("reference", schedule=None):
    def task(name):
        return BashOperator(task_id=name, bash_command="true")

    depart, arrive = task("depart"), task("arrive")
    ends = []
    for number in range(LAYERS * WIDTH):
        board, deploy, health = (task(f"{{kind}}{{number}}") for kind in ("board", "deploy", "health"))
        board >> depart >> deploy >> health >> EmptyOperator(task_id=f"back{{number}}") >> arrive
        if number >= WIDTH:
            ends[number - WIDTH] >> deploy
        if number >= PARALLEL:
            ends[number - PARALLEL] >> deploy
        ends.append(health)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    Run.look_every = 2.0
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder:
        home = Path(folder) / "airflow"
        config = {**CONFIG, **calm(folder)}
        try:
            with (
                metadata_database() as database,
                RunningAirflow(home, sql_alchemy_conn=database, extra_config=config) as airflow,
            ):
                results = _measure(airflow, Path(folder), args.services // LAYERS)
        finally:
            shutdown(root_of(home / "cd"))
    report(results, args.json)


def _measure(airflow: RunningAirflow, folder: Path, width: int) -> list[Result]:
    reference = REFERENCE.format(layers=LAYERS, width=width, parallel=PARALLEL)
    (airflow.dags_folder / "reference.py").write_text(reference)
    fleet = TrivialFleet(airflow, "fleet", folder, (width,) * LAYERS, max_parallel=PARALLEL)
    wait_until(lambda: "reference" in airflow.api.dag_ids(), "the reference is there", timeout=60)
    airflow.api.unpause("reference")
    bound, bound_cpu = _seconds(airflow, "reference")
    fleet.deploy(fleet.release("first"))
    fleet.make_ready(fleet.release("second"))
    taken, cpu = _seconds(airflow, fleet.dag_id)
    what = f"{width * LAYERS} services in {LAYERS} layers / as many tasks that do nothing"
    return [
        Result("train", what, taken, bound, "s", LIMIT),
        Result("train", f"scheduler CPU, {what}", cpu, bound_cpu, "s", CPU_LIMIT),
    ]


def _seconds(airflow: RunningAirflow, dag_id: str) -> tuple[float, float]:
    """Return how long a run took, and the scheduler's CPU seconds meanwhile."""
    pid = airflow.components["scheduler"].pid
    assert pid is not None
    scheduler = psutil.Process(pid)
    before = sum(scheduler.cpu_times()[:2])
    run = Run.triggered(airflow.api, dag_id)
    run.wait_for("success", timeout=1800)
    cpu = sum(scheduler.cpu_times()[:2]) - before
    row = airflow.api.dag_run(run.dag_id, run.run_id)
    return timestamp(row["end_date"]) - timestamp(row["queued_at"]), cpu


if __name__ == "__main__":
    main()
