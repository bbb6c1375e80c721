"""Parks any number of approvals in a running Airflow, each in a DAG run of its own, without a build."""

from __future__ import annotations

from urllib.parse import quote

import httpx
from demo.airflow import RunningAirflow
from demo.runs import Run
from demo.waiting import wait_until
from tests.support.releases import release_of

from airflow_cd.artifacts.registry import open_store
from airflow_cd.model.release import ReleaseRef

APPROVE = "production.approve"

# The pipeline's own approval, behind a package task that costs no worker.
DAG_FILE = """
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG

from airflow_cd.model.service import Service
from airflow_cd.sensors.approval import ApprovalSensor

service = Service.model_validate({service!r})
with DAG("{name}_delivery", schedule=None, max_active_runs=10_000):
    approve = ApprovalSensor(task_id="{approve}", service=service, environment="production", retries=3)
    EmptyOperator(task_id="package") >> approve
"""


class Parking:
    """
    A DAG whose runs do nothing but wait for their approval.

    :param name: of the service that is asked about
    """

    def __init__(self, airflow: RunningAirflow, name: str) -> None:
        self.airflow, self.dag_id = airflow, f"{name}_delivery"
        self._ref = self._store_release(name)
        local = {"command": ["true"], "port": 1}
        service = {
            "name": name,
            "pipeline": "delivery",
            "source": {"repository": "https://git.example/none.git"},
            "environments": [{"name": "production", "target": {"local": local}}],
        }
        file = airflow.dags_folder / f"{name}.py"
        file.write_text(DAG_FILE.format(name=name, service=service, approve=APPROVE))
        wait_until(lambda: self.dag_id in airflow.api.dag_ids(), f"{self.dag_id} is there", timeout=60)

    def park(self, number: int, timeout: float = 1800) -> list[Run]:
        """Start this many runs, wait until each asks for its approval, and return them."""
        api = self.airflow.api
        # Paused, so that no run reaches the approval before there is something to approve.
        api.pause(self.dag_id)
        before = self.count("awaiting_input")
        # One after the other: SQLite lets those that write at once wait long for each other.
        runs = [self._start() for _ in range(number)]
        api.unpause(self.dag_id)
        wait_until(
            lambda: self._are_parked(before + number),
            f"{number} approvals wait",
            timeout=timeout,
            every=1,
            explain=lambda: str({state: self.count(state) for state in ("running", "queued", "failed")}),
        )
        return runs

    def count(self, *states: str) -> int:
        """Return how many of the approvals are in one of these states."""
        found = self.airflow.api.get(
            f"/dags/{self.dag_id}/dagRuns/~/taskInstances", task_id=APPROVE, state=list(states), limit=1
        )
        return int(found["total_entries"])

    def _are_parked(self, number: int) -> bool:
        try:
            return self.count("awaiting_input") == number
        except httpx.TimeoutException:  # the API server is busy with the tasks that park
            return False

    def answered(self) -> set[str]:
        """Return the ids of the runs whose approval has ended."""
        found = self.airflow.api.get(
            f"/dags/{self.dag_id}/dagRuns/~/taskInstances",
            task_id=APPROVE,
            state=["success", "failed", "skipped", "upstream_failed"],
            limit=1000,
        )
        return {task["dag_run_id"] for task in found["task_instances"]}

    def slots(self) -> dict[str, int]:
        """Return how many slots of the pool are taken, by what takes them."""
        pool = self.airflow.api.get("/pools/default_pool")
        return {kind: pool[f"{kind}_slots"] for kind in ("running", "queued", "scheduled", "deferred")}

    def wait_for_slots(self, timeout: float = 60) -> None:
        """
        Wait until nothing takes a slot: the last process gives its own back a moment after its task parked.

        :raises NotInTimeError: something does
        """
        wait_until(
            lambda: not any(self.slots().values()),
            "no slot is taken",
            timeout=timeout,
            explain=lambda: str(self.slots()),
        )

    def remove(self) -> None:
        """Take the DAG and all its runs out of Airflow."""
        (self.airflow.dags_folder / f"{self.dag_id.removesuffix('_delivery')}.py").unlink()
        self.airflow.api.request("DELETE", f"/api/v2/dags/{self.dag_id}")

    def _start(self) -> Run:
        run = Run.triggered(self.airflow.api, self.dag_id)
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/package"
        body = {"key": "return_value", "value": self._ref}
        self.airflow.api.request("POST", f"{path}/xcomEntries", json=body)
        return run

    def _store_release(self, name: str) -> dict[str, str]:
        store = open_store((self.airflow.home / "cd" / "artifacts").as_uri())
        release = release_of(store.put_bytes(b"an archive"), service=name, subject="wait")
        manifest = store.put_bytes(release.model_dump_json().encode())
        ref = ReleaseRef(
            service=name,
            digest=release.digest,
            manifest=manifest,
            store=store.url,
            version=release.version,
            revision=release.revision.sha,
        )
        return ref.model_dump(mode="json")
