"""
Commit to production: a trivial service's pipeline against what Airflow itself, and Buildbot, take.

``overhead``: from a run's creation to its end, against a chain of ``BashOperator("true")`` as long as the
pipeline's critical path, in the same Airflow. The pipeline does its work meanwhile: it checks out, compiles,
runs a test process, packs, starts the service twice behind its front, switches, and watches its health.

``buildbot``: from the push until production is found healthy, against Buildbot 4 with its poller at one
second as well, which checks out and runs the same commands as shell steps, to the end of its build; what has
no command (deploy, health) does nothing there.

All are repeated, alternating; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from demo.airflow import RunningAirflow
from demo.runs import Run
from demo.waiting import wait_until
from tests.integration.services import WRITE_REPORT, TestService
from tests.support.git_repository import GitRepository

from airflow_cd.targets.local.target import root_of, shutdown
from benchmarks.buildbot import Buildbot
from benchmarks.report import Result, report

AIRFLOW_LIMIT, BUILDBOT_LIMIT = 1.3, 2.0
ROUNDS = 5
# build, test, package, two deploys, two health checks, and the rollback that finds nothing to do.
CHAIN = 8

CHAIN_FILE = f"""
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, chain

with DAG("bash_chain", schedule=None):
    chain(*[BashOperator(task_id=f"task{{i}}", bash_command="true") for i in range({CHAIN})])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--without-buildbot", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    Run.look_every = 1.0
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder:
        home = Path(folder) / "airflow"
        try:
            with RunningAirflow(home) as airflow:
                results = _measure(airflow, Path(folder), args.rounds, not args.without_buildbot)
        finally:
            shutdown(root_of(home / "cd"))
    report(results, args.json)


def _measure(airflow: RunningAirflow, folder: Path, rounds: int, buildbot: bool) -> list[Result]:
    (airflow.dags_folder / "bash_chain.py").write_text(CHAIN_FILE)
    service = TestService(airflow, "trivial", "deployment", folder / "service")
    wait_until(lambda: "bash_chain" in airflow.api.dag_ids(), "bash_chain is there", timeout=60)
    airflow.api.unpause("bash_chain")
    numbers = iter(range(10**6))

    def chain_run() -> float:
        return _seconds(Run.triggered(airflow.api, "bash_chain"))

    def pipeline_run() -> float:
        service.commit(f"version {next(numbers)}")
        return _seconds(service.run())

    chain, pipeline = _alternate(rounds, chain_run, pipeline_run)
    results = [_result("overhead", "pipeline / chain of Bash tasks", pipeline, chain, AIRFLOW_LIMIT)]
    if not buildbot:
        return results
    service.watch("1s")

    def pushed() -> float:
        began = time.time()
        sha = service.commit(f"version {next(numbers)}")
        run = Run.of_commit(airflow.api, service.dag_id, sha)
        run.wait_for("success")
        healthy = airflow.api.task_instances(run.dag_id, run.run_id)["production.health"]["end_date"]
        return timestamp(healthy) - began

    (folder / "buildbot").mkdir()
    repository = GitRepository(folder / "buildbot")
    repository.commit()
    with Buildbot(folder / "buildbot", repository.url, WRITE_REPORT) as master:

        def built() -> float:
            began = time.time()
            files = {"src/app.py": f"TEXT = 'version {next(numbers)}'", "tests.xml": "<testsuite/>"}
            return master.wait_for(repository.commit(files)) - began

        ours, theirs = _alternate(rounds, pushed, built)
    return [
        *results,
        _result("buildbot", "push to healthy production / Buildbot", ours, theirs, BUILDBOT_LIMIT),
    ]


def _alternate(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Return the seconds of each; the first round warms up and does not count."""
    taken = [[measure() for measure in measures] for _ in range(rounds + 1)][1:]
    for row in taken:
        print("  ".join(f"{seconds:6.2f} s" for seconds in row), file=sys.stderr)
    return [list(column) for column in zip(*taken, strict=True)]


def _seconds(run: Run) -> float:
    run.wait_for("success")
    return _time(run, "end_date") - _time(run, "queued_at")


def _time(run: Run, name: str) -> float:
    return timestamp(run.api.dag_run(run.dag_id, run.run_id)[name])


def timestamp(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _result(name: str, what: str, value: list[float], reference: list[float], limit: float) -> Result:
    spread = f"{min(value):.2f} to {max(value):.2f} s / {min(reference):.2f} to {max(reference):.2f} s"
    return Result(
        f"{name}",
        f"{what} ({spread})",
        statistics.median(value),
        statistics.median(reference),
        "s",
        limit=limit,
    )


if __name__ == "__main__":
    main()
