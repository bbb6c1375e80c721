"""What the demonstration and the tests need of Airflow's REST API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

Json = dict[str, Any]


class ApiError(Exception):
    """Raised when Airflow refuses a request; ``status`` is the HTTP status."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        request = response.request
        super().__init__(f"{request.method} {request.url.path}: HTTP {self.status}: {response.text[:500]}")


class AirflowApi:
    """
    One user's view of an Airflow. Safe to use from several threads.

    :param base_url: address of the API server, without a path
    :param user: name of the user; ``None`` asks without a login (health only)
    :param password: the user's password
    :param scheduler_log: where that Airflow's scheduler logs, if it is on this machine; see
        :meth:`harness.airflow.RunningAirflow.wait_until_noted`
    """

    def __init__(
        self,
        base_url: str,
        user: str | None = None,
        password: str = "",
        scheduler_log: Path | None = None,
    ) -> None:
        self.base_url, self.user, self._password = base_url, user, password
        self.scheduler_log = scheduler_log
        # Far above what Airflow needs: many of them share two cores while a cluster is compiled beside them.
        self._client = httpx.Client(base_url=base_url, timeout=120, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """
        Ask, logging in first, and again when the login has expired.

        :raises ApiError: the answer is an error
        :raises httpx.TransportError: there is no answer
        """
        if self.user is not None and "Authorization" not in self._client.headers:
            self._log_in()
        response = self._client.request(method, path, **kwargs)
        if response.status_code == 401 and self.user is not None:
            self._log_in()
            response = self._client.request(method, path, **kwargs)
        if response.is_error:
            raise ApiError(response)
        return response

    def get(self, path: str, **params: Any) -> Json:
        """Return the JSON object at ``/api/v2<path>``."""
        found: Json = self.request("GET", f"/api/v2{path}", params=params).json()
        return found

    def rows(self, path: str, key: str) -> list[Json]:
        """Return the objects listed under ``key`` at ``/api/v2<path>``, of all pages."""
        found: list[Json] = []
        while True:
            page = self.get(path, limit=100, offset=len(found))
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def health(self) -> dict[str, Json]:
        """Return status and last heartbeat of every component."""
        return self.get("/monitor/health")

    def import_errors(self) -> list[Json]:
        """Return the DAG files that could not be read, each with ``filename`` and ``stack_trace``."""
        return list(self.get("/importErrors")["import_errors"])

    def dag_ids(self) -> list[str]:
        """Return the ids of all DAGs."""
        return [dag["dag_id"] for dag in self.rows("/dags", "dags")]

    def pause(self, dag_id: str, paused: bool = True) -> None:
        """Stop or start scheduling a DAG. Its asset watchers follow when its file is parsed the next time."""
        self.request("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": paused})

    def unpause(self, dag_id: str) -> None:
        """Start scheduling a DAG; see :meth:`pause`."""
        self.pause(dag_id, False)

    def trigger(self, dag_id: str, conf: Json | None = None) -> str:
        """Start a run by hand and return its id."""
        body = {"logical_date": None, "conf": conf or {}}
        run = self.request("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body).json()
        return str(run["dag_run_id"])

    def dag_runs(self, dag_id: str) -> list[Json]:
        """Return the runs of a DAG, newest first."""
        return list(self.get(f"/dags/{quote(dag_id)}/dagRuns", order_by="-id", limit=100)["dag_runs"])

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        """Return one run."""
        return self.get(_run(dag_id, run_id))

    def triggering_events(self, dag_id: str, run_id: str) -> list[Json]:
        """Return the asset events a run was started by."""
        return list(self.get(f"{_run(dag_id, run_id)}/upstreamAssetEvents")["asset_events"])

    def asset_events(self, name: str) -> list[Json]:
        """Return the ``extra`` of all events of the asset with this name, oldest first."""
        assets = self.get("/assets", name_pattern=name, only_active=False)["assets"]
        ids = [asset["id"] for asset in assets if asset["name"] == name]
        if not ids:
            return []
        events = self.get("/assets/events", asset_id=ids[0], order_by="timestamp", limit=100)["asset_events"]
        return [event["extra"] for event in events]

    def task_instances(self, dag_id: str, run_id: str) -> dict[str, Json]:
        """Return the (unmapped) tasks of a run by their ids."""
        found = self.rows(f"{_run(dag_id, run_id)}/taskInstances", "task_instances")
        return {task["task_id"]: task for task in found}

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int | None = None) -> str:
        """Return the text of a task's log; ``try_number`` is the latest when it is not given."""
        if try_number is None:
            try_number = max(1, self.get(_task(dag_id, run_id, task_id))["try_number"])
        lines = self.get(f"{_task(dag_id, run_id, task_id)}/logs/{try_number}")["content"]
        return "\n".join(_line(line) for line in lines)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task left under ``key``, or ``None``."""
        try:
            return self.get(f"{_task(dag_id, run_id, task_id)}/xcomEntries/{quote(key)}")["value"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def links(self, dag_id: str, run_id: str, task_id: str) -> dict[str, str | None]:
        """Return the extra links of a task: name -> address."""
        return dict(self.get(f"{_task(dag_id, run_id, task_id)}/links")["extra_links"])

    def mark(self, dag_id: str, run_id: str, task_id: str, new_state: str) -> None:
        """Mark a task as ``success``, ``failed`` or ``skipped``, as the buttons of the grid do."""
        self.request("PATCH", f"/api/v2{_task(dag_id, run_id, task_id)}", json={"new_state": new_state})

    def clear(self, dag_id: str, run_id: str, *task_ids: str, downstream: bool = False) -> None:
        """Clear tasks so that they run again."""
        body = {
            "dag_run_id": run_id,
            "task_ids": list(task_ids),
            "dry_run": False,
            "only_failed": False,
            "include_downstream": downstream,
        }
        self.request("POST", f"/api/v2/dags/{quote(dag_id)}/clearTaskInstances", json=body)

    def question(self, dag_id: str, run_id: str, task_id: str) -> Json:
        """Return what a person is asked: subject, body, options, assigned users and the response."""
        return self.get(f"{_task(dag_id, run_id, task_id)}/-1/hitlDetails")

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, **inputs: Any) -> None:
        """Answer it as this user. :param inputs: values of the form's fields, such as ``reason``"""
        body = {"chosen_options": [option], "params_input": inputs}
        self.request("PATCH", f"/api/v2{_task(dag_id, run_id, task_id)}/-1/hitlDetails", json=body)

    def _log_in(self) -> None:
        self._client.headers.pop("Authorization", None)
        response = self._client.post("/auth/token", json={"username": self.user, "password": self._password})
        if response.is_error:
            raise ApiError(response)
        self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{quote(task_id)}"


def _line(line: Any) -> str:
    """Return one log line as text: Airflow sends objects, or plain strings for what is not structured."""
    if not isinstance(line, dict):
        return str(line)
    details = [f"{name}={line[name]}" for name in ("reason", "error_detail", "exc_info") if line.get(name)]
    return " ".join([f"{line.get('timestamp') or ''} {line.get('event', '')}".strip(), *details])
