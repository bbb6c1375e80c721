"""How long it takes until N waiting approvals are closed, once a newer release is healthy in production."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from harness.airflow import RunningAirflow
from harness.ports import any_free
from harness.runs import Run
from harness.waiting import wait_until
from tests.support.databases import metadata_database
from tests.support.git_repository import GitRepository
from tests.support.releases import release_of

from airflow_cd.model.release import Release
from airflow_cd.model.service import Service
from airflow_cd.packaging.archive import pack, unpack
from airflow_cd.targets.base import Access
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.targets.registry import open_target
from benchmarks.overhead import timestamp
from benchmarks.parking import APPROVE, DAG_FILE, Parking
from benchmarks.report import Result, report

LIMIT_SECONDS = 60.0
FEW = 10
HEALTH = "production.health"
CONFIG = {"AIRFLOW__CORE__PARALLELISM": "4"}

SERVER = """
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""

# The pipeline's own end behind the approval; the release is brought to production by the benchmark itself.
WITH_HEALTH = (
    DAG_FILE
    + f"""
    from airflow_cd.sensors.health import HealthCheckSensor

    approve >> HealthCheckSensor(
        task_id="{HEALTH}", service=service, environment="production",
        deploy_task_id="package", approval_task_id="{{approve}}",
    )
"""
)


class Candidates(Parking):
    """
    Releases of one service that all wait for their approval, each of a commit of its own.

    :param folder: where repository and archive are made
    """

    dag_file = WITH_HEALTH

    def __init__(self, airflow: RunningAirflow, name: str, folder: Path) -> None:
        self.repository = GitRepository(folder)
        (port,) = any_free(1)
        local = {"command": [sys.executable, "-c", SERVER], "port": port}
        production = {"target": {"local": local}, "health": [{"http": "/", "interval": "200ms"}]}
        super().__init__(airflow, name, self.repository.url, production)
        tree, archive = folder / "tree", folder / "release.tar.gz"
        tree.mkdir()
        (tree / "index.html").write_text("hello")
        pack(tree, archive, include=("**",), exclude=())
        self._digest = self.store.put_file(archive)

    def commits(self, number: int) -> list[Release]:
        """Return a release of each of this many new commits, oldest first."""
        shas = [self.repository.commit(push=False) for _ in range(number)]
        self.repository.push("main")
        return [
            # All have the same files, but are releases of their own.
            release_of(self._digest, service=self.name, version=f"0.{n}.0", sha=sha)
            for n, sha in enumerate(shas)
        ]

    def deploy(self, release: Release) -> None:
        """Bring a release to production."""
        service = Service.model_validate(self.definition)
        data = self.airflow.home / "cd"
        target = open_target(self.name, service.production, Access(data, unpack))
        target.deploy(release, self.store, expected=target.record().generation, actor="benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder:
        home = Path(folder) / "airflow"
        try:
            with (
                metadata_database() as database,
                RunningAirflow(home, sql_alchemy_conn=database, extra_config=CONFIG) as airflow,
            ):
                few = _measure(_candidates(airflow, Path(folder), "few"), FEW)
                many = _measure(_candidates(airflow, Path(folder), "many"), args.candidates)
        finally:
            shutdown(root_of(home / "cd"))
    what = f"end of {HEALTH} until {args.candidates} waiting approvals are closed / {FEW}"
    report([Result("superseding", what, many, few, "s", limit_value=LIMIT_SECONDS)], args.json)


def _candidates(airflow: RunningAirflow, folder: Path, name: str) -> Candidates:
    (folder / name).mkdir()
    return Candidates(airflow, name, folder / name)


def _measure(candidates: Candidates, number: int) -> float:
    *older, newest = candidates.commits(number + 1)
    candidates.park(number, older)
    (run,) = candidates.park(1, [newest])
    candidates.wait_for_slots()
    candidates.deploy(newest)
    candidates.airflow.wait_until_noted(run.run_id, APPROVE)
    run.answer(APPROVE, "Approve")
    run.wait_for_task(HEALTH, timeout=120)
    wait_until(lambda: candidates.count("skipped") == number, "all are closed", timeout=300)
    return _last_end(candidates, number) - _ended(run)


def _ended(run: Run) -> float:
    return timestamp(run.api.task_instances(run.dag_id, run.run_id)[HEALTH]["end_date"])


def _last_end(candidates: Candidates, number: int) -> float:
    path = f"/dags/{candidates.dag_id}/dagRuns/~/taskInstances"
    found = candidates.airflow.api.get(path, task_id=APPROVE, state="skipped", limit=number)
    return max(timestamp(task["end_date"]) for task in found["task_instances"])


if __name__ == "__main__":
    main()
