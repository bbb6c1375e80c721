"""Twenty services at once on Celery workers, and one worker dies: every release is deployed, once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from harness.component import Component
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import APPROVE, answer
from tests.integration.services import TestService, made
from tests.support.celery_airflow import CeleryAirflow
from tests.support.databases import metadata_database
from tests.support.requirements import require

from airflow_cd.targets.local.target import root_of, shutdown

pytestmark = [pytest.mark.scheduler, pytest.mark.xdist_group("celery"), pytest.mark.timeout(1500)]

SERVICES = 20
_SETTINGS = {
    # As in docker-compose.yaml, only quicker.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


@pytest.fixture(scope="module")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CeleryAirflow]:
    broker = os.environ.get("CD_TEST_REDIS_URL")
    home = tmp_path_factory.mktemp("celery")
    with metadata_database() as database:
        require(
            broker and database,
            "needs CD_TEST_POSTGRES_URL (a role that may create databases) and CD_TEST_REDIS_URL",
        )
        assert broker is not None and database is not None
        try:
            with CeleryAirflow(
                home, sql_alchemy_conn=database, broker=broker, slots=3, extra_config=_SETTINGS
            ) as running:
                yield running  # type: ignore[misc]
        finally:
            shutdown(root_of(home / "cd"))


def test_twenty_services_at_once_and_a_worker_dies(celery: CeleryAirflow, tmp_path: Path) -> None:
    with made(TestService, celery, tmp_path, "celery") as make:
        with ThreadPoolExecutor(4) as pool:
            services: list[TestService] = list(pool.map(lambda _: make("delivery"), range(SERVICES)))
        runs = [service.run() for service in services]
        wait_until(
            lambda: _states(celery, runs, "staging.deploy")["running"] > 0,
            "a release is being deployed",
            timeout=300,
        )
        _kill_busy_worker(celery)
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(_approve, run) for run in runs]:
                done.result()
        for run in runs:
            run.wait_for("success", timeout=600)
        for service, run in zip(services, runs, strict=True):
            _expect_one_deployment(service, run)


def _kill_busy_worker(airflow: CeleryAirflow) -> None:
    """Kill the worker that has more to do, with all its tasks, for good."""
    busiest = max(airflow.workers.values(), key=_tasks)
    wait_until(lambda: _tasks(busiest), f"{busiest.name} executes a task", timeout=120, every=0.02)
    busiest.send(signal.SIGKILL)


def _tasks(worker: Component) -> int:
    """Return how many tasks a worker executes: each is a child of one of its pool's processes."""
    process = psutil.Process(worker.pid)
    return len(process.children(recursive=True)) - len(process.children())


def _approve(run: Run) -> None:
    run.wait_for_task(APPROVE, "awaiting_input", timeout=900)
    answer(run, "Approve", run.api)


def _states(airflow: CeleryAirflow, runs: list[Run], task_id: str) -> Counter[str | None]:
    return Counter(run.states()[task_id] for run in runs)


def _expect_one_deployment(service: TestService, run: Run) -> None:
    digest = run.xcom("package")["digest"]
    for environment in service.environments:
        record = service.record(environment)
        assert record.current is not None
        assert (record.generation, record.current.release.digest) == (1, digest), environment
        assert service.served(environment) == "first"
        assert [event["generation"] for event in service.history(environment)] == [1]
    assert httpx.get(f"http://127.0.0.1:{service.ports['production']}/healthz").status_code == 200
