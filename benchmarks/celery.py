"""
Throughput of the team's topology: how long two Celery workers take for pipelines that all start at once.

Against as many runs of a DAG with as many tasks in a row that do nothing, on the same Airflow (PostgreSQL,
Redis), alternating. Needs ``CD_TEST_POSTGRES_URL`` and ``CD_TEST_REDIS_URL``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.runs import Run
from harness.waiting import wait_until
from tests.support.celery_airflow import CeleryAirflow
from tests.support.databases import metadata_database

from airflow_cd.targets.local.target import root_of, shutdown
from benchmarks.overhead import CHAIN, timestamp
from benchmarks.report import Result, report
from benchmarks.trivial import TrivialService

LIMIT = 2.0
ROUNDS = 3
NOTHING_FILE = f"""
from airflow.sdk import DAG, BaseOperator, chain

class Nothing(BaseOperator):
    def execute(self, context):
        pass

with DAG("nothing", schedule=None, max_active_runs=1000):
    chain(*[Nothing(task_id=f"task{{i}}") for i in range({CHAIN})])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    Run.look_every = 1.0
    broker = os.environ.get("CD_TEST_REDIS_URL")
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder, metadata_database() as database:
        if not (broker and database):
            print("skipped: needs CD_TEST_POSTGRES_URL and CD_TEST_REDIS_URL")
            return
        home = Path(folder) / "airflow"
        try:
            with CeleryAirflow(home, sql_alchemy_conn=database, broker=broker, slots=2) as airflow:
                rows = _measure(airflow, Path(folder), args.pipelines)  # type: ignore[arg-type]
        finally:
            shutdown(root_of(home / "cd"))
    ours, nothing = (statistics.median(column) for column in zip(*rows, strict=True))
    per_minute = 60 * args.pipelines / ours
    what = f"{args.pipelines} pipelines at once ({per_minute:.0f} a minute) / as many tasks that do nothing"
    report([Result("celery", what, ours, nothing, "s", limit=LIMIT)], args.json)


def _measure(airflow: CeleryAirflow, folder: Path, number: int) -> list[tuple[float, float]]:
    (airflow.dags_folder / "nothing.py").write_text(NOTHING_FILE)
    services = [TrivialService(airflow, f"s{n}", "deployment", folder / f"s{n}") for n in range(number)]
    wait_until(lambda: "nothing" in airflow.api.dag_ids(), "the DAG is there", timeout=60)
    airflow.api.unpause("nothing")

    def pipelines(text: str) -> float:
        for service in services:
            service.commit(text)
        return _seconds([service.run() for service in services])

    def nothing() -> float:
        return _seconds([Run.triggered(airflow.api, "nothing") for _ in range(number)])

    # The first round warms up and does not count.
    return [(pipelines(f"round {n}"), nothing()) for n in range(ROUNDS + 1)][1:]


def _seconds(runs: list[Run]) -> float:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: run.wait_for("success", timeout=900), runs))
    ends = [run.api.dag_run(run.dag_id, run.run_id) for run in runs]
    began = min(timestamp(one["queued_at"]) for one in ends)
    return max(timestamp(one["end_date"]) for one in ends) - began


if __name__ == "__main__":
    main()
