"""``airflow cd trains``, ``depart`` and ``cancel``: release trains from the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

from airflow_cd.cli.api import Api, RefusedError, has_login, logged_in
from airflow_cd.cli.decide import answer_question
from airflow_cd.cli.questions import waiting_questions
from airflow_cd.cli.status import services_file
from airflow_cd.model.loading import load_services
from airflow_cd.model.train import CANCELLED, TRAIN_PREFIX
from airflow_cd.model.wall_clock import local

if TYPE_CHECKING:
    from airflow_cd.model.service import Service
    from airflow_cd.model.train import Train

_UNDER_WAY = ("queued", "running")
# Of a train: the task that lets it depart, with or without asking.
_DEPARTURES = ("approve", "depart")


def trains(args: Namespace) -> None:
    """
    Print trains by members: the next departure, the release that is ready, and what production runs.

    Departures that are under way need a login.

    :raises DefinitionError: the services file cannot be used
    """
    definitions = load_services(services_file(args))
    table = Table(box=None, pad_edge=False)
    for title in ("TRAIN", "NEXT DEPARTURE", "UNDER WAY", "MEMBER", "READY", "PRODUCTION"):
        table.add_column(title, overflow="fold")
    under_way = _under_way(args, definitions.trains)
    for train in definitions.trains:
        members = [service for service in definitions.services if service.train == train.name]
        first = (train.name, _next(train), under_way.get(train.name, "?"))
        rows = [_member(service) for service in members] or [("-", "-", "-")]
        for number, row in enumerate(rows):
            table.add_row(*map(Text, (*(first if number == 0 else ("", "", "")), *row)))
    Console(highlight=False, soft_wrap=True).print(table)


def depart(args: Namespace) -> None:
    """Start a departure. :raises SystemExit: there is no such train, or Airflow refuses"""
    dag_id = f"{TRAIN_PREFIX}{args.train}"
    with logged_in(args) as api:
        _check(api, args.train)
        body = {"logical_date": None, "conf": {"hold": args.hold or []}}
        run = api.post(f"/dags/{quote(dag_id)}/dagRuns", body)
        _print(api.address(f"/dags/{quote(dag_id)}/runs/{quote(run['dag_run_id'])}"))


def cancel(args: Namespace) -> None:
    """
    Cancel a departure: reject it where it waits for an approval, else keep back who is not deployed yet.

    What is being deployed comes to its end, with its health check and, if need be, its rollback.

    :raises SystemExit: none is under way, or several are
    """
    dag_id = f"{TRAIN_PREFIX}{args.train}"
    with logged_in(args) as api:
        _check(api, args.train)
        run_id = _meant(api, dag_id, args.run_id)
        waiting = [one for one in waiting_questions(api, dag_id) if _of(one, run_id)]
        for question in waiting:
            answer_question(api, question, "Reject", args.reason)
        if any(one["task_instance"]["task_id"] in _DEPARTURES for one in waiting):
            _print(f"{dag_id}, run {run_id} is rejected: nothing is deployed.")
            return
        _keep_back(api, dag_id, run_id, args.reason or "no reason given")
    _print(f"{dag_id}, run {run_id} is cancelled: who is not deployed yet stays behind.")


def _keep_back(api: Api, dag_id: str, run_id: str, reason: str) -> None:
    run = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
    tasks = {task["task_id"] for task in api.rows(f"{run}/taskInstances", "task_instances")}
    departure = next(name for name in _DEPARTURES if name in tasks)
    path = f"{run}/taskInstances/{departure}/xcomEntries"
    try:
        api.post(path, {"key": CANCELLED, "value": reason})
    except RefusedError as error:
        if error.status != 409:  # cancelled already
            raise


def _meant(api: Api, dag_id: str, run_id: str | None) -> str:
    found = [str(run["dag_run_id"]) for run in _runs(api, dag_id)]
    meant = [one for one in found if run_id in (None, one)]
    if len(meant) == 1:
        return meant[0]
    if not found:
        raise SystemExit(f"No departure of {dag_id} is under way.")
    lines = [f"Say which departure of {dag_id}:", *(f"  --run-id {one}" for one in found)]
    raise SystemExit("\n".join(lines))


def _runs(api: Api, dag_id: str) -> Iterator[dict[str, Any]]:
    yield from api.rows(f"/dags/{quote(dag_id)}/dagRuns", "dag_runs", state=_UNDER_WAY)


def _of(question: dict[str, Any], run_id: str) -> bool:
    task_id = str(question["task_instance"]["task_id"])
    asks = task_id in _DEPARTURES or task_id.endswith(".approve")
    return asks and question["task_instance"]["dag_run_id"] == run_id


def _check(api: Api, train: str) -> None:
    try:
        api.check_enabled(f"{TRAIN_PREFIX}{train}")
    except RefusedError as error:
        if error.status != 404:
            raise
        raise SystemExit(
            f"Airflow knows no {TRAIN_PREFIX}{train}: there is no train called {train!r}. "
            "`airflow cd trains` lists them."
        ) from error


def _under_way(args: Namespace, found: tuple[Train, ...]) -> dict[str, str]:
    if not has_login(args):
        return {}
    with logged_in(args) as api:
        waiting = {one["task_instance"]["dag_run_id"] for one in waiting_questions(api)}
        return {train.name: _told(api, train, waiting) for train in found}


def _told(api: Api, train: Train, waiting: set[str]) -> str:
    try:
        runs = [str(run["dag_run_id"]) for run in _runs(api, f"{TRAIN_PREFIX}{train.name}")]
    except RefusedError as error:
        if error.status != 404:
            raise
        return "Airflow does not know it yet"
    told = [f"{run_id}{' (waits for an approval)' if run_id in waiting else ''}" for run_id in runs]
    return ", ".join(told) or "-"


def _next(train: Train) -> str:
    return local(train.next_departure(datetime.now(timezone.utc)), train.timezone)


def _member(service: Service) -> tuple[str, str, str]:
    from airflow_cd.exceptions import CdError
    from airflow_cd.hooks.adapters import open_target
    from airflow_cd.hooks.readiness import ready_release

    try:
        ref = ready_release(service)
        current = open_target(service, service.production).record().current
    except (CdError, OSError, ValueError) as error:
        return service.name, "?", f"cannot be asked: {error}"
    runs = current.release.version if current else "-"
    new = ref is not None and (current is None or current.release.digest != ref.digest)
    return service.name, ref.version if ref is not None and new else "-", runs


def _print(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
