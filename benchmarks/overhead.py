"""
Commit to production: a trivial service's pipeline against what Airflow itself, and Buildbot, take.

``overhead``: from a run's creation to its end, against a chain of ``BashOperator("true")`` as long as the
pipeline's critical path, in the same Airflow. The pipeline does its work meanwhile: it checks out, builds and
tests by ``true``, packs, starts the service twice behind its front, switches, and asks it for its health. The
service is trivial (:mod:`benchmarks.trivial`): what is measured is the pipeline, not what it is given to do.

``buildbot``: from the push until production is found healthy, against Buildbot 4 with its poller at one
second as well, which checks out and runs the same commands as shell steps, to the end of its build; what has
no command (deploy, health) does nothing there.

All are repeated, alternating, each being the first in every other round; the ratio is that of the medians.
On SQLite, Airflow compares the time of a new run with a clock of whole seconds, so that it waits for the next
one: each is made at a random moment of a second, else rounds of the same length meet the same one again.

``overhead CPU``: what all processes of Airflow, the tasks, and what these started took meanwhile, which says
more than seconds do where something else is running on the machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.support.git_repository import GitRepository

from airflow_cd.targets.local.target import root_of, shutdown
from benchmarks.buildbot import Buildbot
from benchmarks.report import Result, report
from benchmarks.trivial import TrivialService

AIRFLOW_LIMIT, BUILDBOT_LIMIT = 1.3, 2.0
ROUNDS = 15
# build, test, package, two deploys and two health checks, which skip the rollback.
CHAIN = 7

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
            with RunningAirflow(home, extra_config=calm(folder)) as airflow:
                results = _measure(airflow, Path(folder), args.rounds, not args.without_buildbot)
        finally:
            shutdown(root_of(home / "cd"))
    report(results, args.json)


def calm(folder: str) -> dict[str, str]:
    """Return what to set for an Airflow that is measured, so that nothing else takes time."""
    return {
        # As in docs/operations/performance.md: what is parsed again and again is no part of a run.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        # A shell whose input is a socket, as a task's is, reads ~/.bashrc: no business of Bash tasks.
        "HOME": folder,
    }


def _measure(airflow: RunningAirflow, folder: Path, rounds: int, buildbot: bool) -> list[Result]:
    (airflow.dags_folder / "bash_chain.py").write_text(CHAIN_FILE)
    service = TrivialService(airflow, "trivial", "deployment", folder / "service")
    wait_until(lambda: "bash_chain" in airflow.api.dag_ids(), "bash_chain is there", timeout=60)
    airflow.api.unpause("bash_chain")
    numbers = iter(range(10**6))

    cpu: dict[str, list[float]] = {"chain": [], "pipeline": []}

    def chain_run() -> float:
        before = _cpu(airflow)
        seconds = _seconds(Run.triggered(airflow.api, "bash_chain"))
        cpu["chain"].append(_cpu(airflow) - before)
        return seconds

    def pipeline_run() -> float:
        service.commit(f"version {next(numbers)}")
        before = _cpu(airflow)
        seconds = _seconds(service.run())
        cpu["pipeline"].append(_cpu(airflow) - before)
        return seconds

    what = "pipeline / chain of Bash tasks"
    chain, pipeline = _alternate(rounds, chain_run, pipeline_run)
    chain_cpu, pipeline_cpu = (column[1:] for column in cpu.values())
    results = [
        _result("overhead", what, pipeline, chain, AIRFLOW_LIMIT),
        _result("overhead CPU", what, pipeline_cpu, chain_cpu, AIRFLOW_LIMIT),
    ]
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
    with Buildbot(folder / "buildbot", repository.url) as master:

        def built() -> float:
            began = time.time()
            files = {"src/app.py": f"TEXT = 'version {next(numbers)}'"}
            return master.wait_for(repository.commit(files)) - began

        ours, theirs = _alternate(rounds, pushed, built)
    return [
        *results,
        _result("buildbot", "push to healthy production / Buildbot", ours, theirs, BUILDBOT_LIMIT),
    ]


def _alternate(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Return the seconds of each; the first round warms up and does not count."""
    columns: list[list[float]] = [[] for _ in measures]
    for number in range(rounds + 1):
        order = list(range(len(measures)))
        for place in order if number % 2 else reversed(order):
            time.sleep(random.random())
            columns[place].append(measures[place]())
        if number:
            print("  ".join(f"{column[-1]:6.2f} s" for column in columns), file=sys.stderr)
    return [column[1:] for column in columns]


def _cpu(airflow: RunningAirflow) -> float:
    """Return the CPU seconds of Airflow and of what runs the services so far, with all that ended by now."""
    roots = [component.pid for component in airflow.components.values()]
    with suppress(OSError, ValueError):  # nothing was deployed yet
        roots.append(int((root_of(airflow.home / "cd") / "supervisord.pid").read_text()))
    total = 0.0
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(root)
            for process in [leader, *leader.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += sum(process.cpu_times()[:4])
    return total


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
