"""Parks any number of approvals in a running Airflow, each in a DAG run of its own, without a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.support.releases import release_of

from airflow_cd.model.release import Release, ReleaseRef
from airflow_cd.stores.registry import open_store

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
_LOCAL = {"command": ["true"], "port": 1}


class Parking:
    """
    A DAG whose runs do nothing but wait for their approval.

    :param name: of the service that is asked about
    :param repository: where its commits come from
    :param production: how it runs in production
    """

    dag_file = DAG_FILE

    def __init__(
        self,
        airflow: RunningAirflow,
        name: str,
        repository: str = "https://git.example/none.git",
        production: Mapping[str, Any] | None = None,
    ) -> None:
        self.airflow, self.name, self.dag_id = airflow, name, f"{name}_delivery"
        self.store = open_store((airflow.home / "cd" / "artifacts").as_uri())
        self.definition = {
            "name": name,
            "pipeline": "delivery",
            "source": {"repository": repository},
            "environments": [{"name": "production", **(production or {"target": {"local": _LOCAL}})}],
        }
        file = airflow.dags_folder / f"{name}.py"
        file.write_text(self.dag_file.format(name=name, service=self.definition, approve=APPROVE))
        wait_until(lambda: self.dag_id in airflow.api.dag_ids(), f"{self.dag_id} is there", timeout=60)

    def park(
        self, number: int, releases: Sequence[Release] | None = None, timeout: float = 1800
    ) -> list[Run]:
        """
        Start this many runs, wait until each asks for its approval, and return them.

        :param releases: which releases they are about, one each; default: all about the same one
        """
        api = self.airflow.api
        # Paused, so that no run reaches the approval before there is something to approve.
        api.pause(self.dag_id)
        before = self.count("awaiting_input")
        # One after the other: SQLite lets those that write at once wait long for each other.
        about = releases or [release_of(self.store.put_bytes(b"an archive"), service=self.name)] * number
        runs = [self._start(self._store_release(release)) for release in about]
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
        """
        Take the DAG and all its runs out of Airflow.

        The DAG processor dies of a DAG that goes while it notes that its file is gone (Airflow 3.3.2).
        """
        api = self.airflow.api
        (self.airflow.dags_folder / f"{self.name}.py").unlink()
        wait_until(lambda: self.dag_id not in api.dag_ids(), f"{self.dag_id} is known to be gone", timeout=60)
        api.request("DELETE", f"/api/v2/dags/{self.dag_id}")

    def _start(self, ref: Mapping[str, Any]) -> Run:
        run = Run.triggered(self.airflow.api, self.dag_id)
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/package"
        body = {"key": "return_value", "value": dict(ref)}
        self.airflow.api.request("POST", f"{path}/xcomEntries", json=body)
        return run

    def _store_release(self, release: Release) -> dict[str, Any]:
        ref = ReleaseRef(
            service=self.name,
            digest=release.digest,
            manifest=self.store.put_bytes(release.model_dump_json().encode()),
            store=self.store.url,
            version=release.version,
            revision=release.revision.sha,
        )
        return ref.model_dump(mode="json")
