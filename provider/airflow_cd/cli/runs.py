"""Starts DAG runs, each only once."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi, RefusedError


def start_run(api: AirflowApi, dag_id: str, conf: dict[str, Any]) -> str:
    """
    Start a run and return its id.

    The id is chosen here, so that Airflow refuses a repeated request whose predecessor arrived.

    :raises RefusedError: Airflow refuses
    :raises SystemExit: Airflow does not answer
    """
    run_id = f"cd__{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}_{secrets.token_hex(4)}"
    path = f"/dags/{quote(dag_id)}/dagRuns"
    body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}

    def attempt(is_repetition: bool) -> None:
        try:
            api.once("POST", path, json=body)
        except RefusedError as error:
            if not (is_repetition and error.status == 409 and _is_there(api, f"{path}/{run_id}")):
                raise

    page = api.address(f"/dags/{quote(dag_id)}/runs/{run_id}")
    api.repeated(attempt, unknown=f"The run may have started: look at {page} before you repeat the command.")
    return run_id


def _is_there(api: AirflowApi, path: str) -> bool:
    try:
        api.once("GET", path)
    except RefusedError as error:
        if error.status != 404:
            raise
        return False
    return True
