"""``airflow cd rollback``: runs a service's rollback DAG, and waits for its end."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi, logged_in, start_run
from airflow_cd.cli.printing import say

_ENDED = ("success", "failed")
_POLL_SECONDS = 1.0


def rollback(args: Namespace) -> None:
    """
    Roll a service back. With ``--no-wait`` the command ends when the run is started.

    :raises SystemExit: with a message, when it is refused or fails
    """
    dag_id = f"{args.service}_rollback"
    conf = {"release": args.to, "reason": args.reason}
    if args.environment:
        conf["environment"] = args.environment
    with logged_in(args) as api:
        api.check_enabled(dag_id)
        run_id = start_run(api, dag_id, conf)
        say(api.address(f"/dags/{quote(dag_id)}/runs/{quote(run_id)}"))
        if not args.no_wait:
            say(_wait(api, dag_id, run_id))


def _wait(api: AirflowApi, dag_id: str, run_id: str) -> str:
    path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
    while (state := api.get(path)["state"]) not in _ENDED:
        time.sleep(_POLL_SECONDS)
    tasks = api.get(f"{path}/taskInstances")["task_instances"]
    done = [task for task in tasks if task["state"] == "success"]
    if state == "success" and done:
        restored: dict[str, Any] = api.get(
            f"{path}/taskInstances/{quote(done[0]['task_id'])}/xcomEntries/return_value"
        )["value"]
        environment = done[0]["task_id"].rpartition(".")[0]
        verified = ", and is healthy" if restored.get("verified") else ""
        return f"{environment} runs {restored['version']} {restored['digest']} again{verified}."
    failed = next((task["task_id"] for task in tasks if task["state"] == "failed"), None)
    if failed is None:
        raise SystemExit("Nothing was rolled back; the logs of the run say why.")
    raise SystemExit(f"The rollback failed: {_reason(api, path, failed)}")


def _reason(api: AirflowApi, path: str, task_id: str) -> str:
    """Return the error a failed task ended with, as far as its log tells."""
    task = api.get(f"{path}/taskInstances/{quote(task_id)}")
    content = api.get(f"{path}/taskInstances/{quote(task_id)}/logs/{max(1, task['try_number'])}")["content"]
    for line in reversed(content if isinstance(content, list) else []):
        for error in (line.get("error_detail") or []) if isinstance(line, dict) else []:
            return str(error.get("exc_value"))
    return f"see the log of {task_id}"
