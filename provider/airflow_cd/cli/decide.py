"""``airflow cd approve`` and ``airflow cd reject``: answer a waiting approval as the user you are."""

from __future__ import annotations

import os
from argparse import Namespace
from getpass import getpass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console

if TYPE_CHECKING:
    import httpx

TOKEN_VARIABLE = "AIRFLOW_CD_TOKEN"
PASSWORD_VARIABLE = "AIRFLOW_CD_PASSWORD"


def approve(args: Namespace) -> None:
    """Approve the waiting release. :raises SystemExit: with a message, when that is not possible"""
    _decide(args, "Approve")


def reject(args: Namespace) -> None:
    """Reject the waiting release. :raises SystemExit: with a message, when that is not possible"""
    _decide(args, "Reject")


def _decide(args: Namespace, option: str) -> None:
    import httpx

    with httpx.Client(base_url=_api_url(args), timeout=30) as client:
        try:
            client.headers["Authorization"] = f"Bearer {_token(client, args)}"
            waiting = _choose(_waiting(client, args), args)
            _answer(client, waiting, option, args.reason)
        except httpx.HTTPError as error:
            raise SystemExit(f"The Airflow API at {client.base_url} does not answer: {error}") from error
    ti = waiting["task_instance"]
    Console(soft_wrap=True, highlight=False).print(
        f"{option}: {waiting['subject']} ({ti['dag_id']}, run {ti['dag_run_id']})", markup=False
    )


def _api_url(args: Namespace) -> str:
    from airflow.configuration import conf

    return str(args.api_url or conf.get("api", "base_url", fallback="") or "http://localhost:8080")


def _token(client: httpx.Client, args: Namespace) -> str:
    """Log in: a decision is worth what is known about who took it, so there is no way around the login."""
    if not args.user:
        if token := os.environ.get(TOKEN_VARIABLE):
            return token
        raise SystemExit(f"Who decides? Give --user, or an access token in {TOKEN_VARIABLE}.")
    password = os.environ.get(PASSWORD_VARIABLE) or getpass(f"Password of {args.user}: ")
    response = client.post("/auth/token", json={"username": args.user, "password": password})
    if response.is_error:
        raise SystemExit(f"Airflow does not accept the login of {args.user!r} (HTTP {response.status_code})")
    return str(response.json()["access_token"])


def _waiting(client: httpx.Client, args: Namespace) -> list[dict[str, Any]]:
    dag_id = f"{args.service}_delivery"
    response = client.get(
        f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(args.run_id or '~', safe='~')}/hitlDetails",
        params={"response_received": False, "state": "awaiting_input", "limit": 100},
    )
    _expect_success(response)
    details: list[dict[str, Any]] = response.json()["hitl_details"]
    wanted = f"{args.environment}.approve" if args.environment else ".approve"
    return [detail for detail in details if detail["task_instance"]["task_id"].endswith(wanted)]


def _choose(details: list[dict[str, Any]], args: Namespace) -> dict[str, Any]:
    if not details:
        raise SystemExit(f"No release of {args.service!r} waits for an approval.")
    if len(details) == 1:
        return details[0]
    lines = [_option(detail) for detail in details]
    raise SystemExit("\n".join([f"{len(details)} releases wait; say which one:", *lines]))


def _option(detail: dict[str, Any]) -> str:
    ti = detail["task_instance"]
    environment = ti["task_id"].rpartition(".")[0]
    return f"  --run-id {ti['dag_run_id']} --environment {environment}   {detail['subject']}"


def _answer(client: httpx.Client, waiting: dict[str, Any], option: str, reason: str) -> None:
    ti = waiting["task_instance"]
    path = (
        f"dags/{quote(ti['dag_id'])}/dagRuns/{quote(ti['dag_run_id'])}/taskInstances/{quote(ti['task_id'])}"
    )
    response = client.patch(
        f"/api/v2/{path}/{ti['map_index']}/hitlDetails",
        json={"chosen_options": [option], "params_input": {"reason": reason}},
    )
    _expect_success(response)


def _expect_success(response: httpx.Response) -> None:
    if response.is_error:
        detail = (
            response.json().get("detail", response.text) if "json" in str(response.headers) else response.text
        )
        raise SystemExit(f"Airflow refuses (HTTP {response.status_code}): {detail}")
