"""``airflow cd trains``, ``depart`` and ``cancel``: release trains from the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi, RefusedError, has_login, logged_in, start_run, waiting_questions
from airflow_cd.cli.decide import answer_question
from airflow_cd.cli.printing import Column, print_table, say
from airflow_cd.cli.status import services_file
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.model.train import CANCELLED, TRAIN_PREFIX
from airflow_cd.model.window import local

if TYPE_CHECKING:
    from airflow_cd.model.service import Service
    from airflow_cd.model.train import Train

_UNDER_WAY = ("queued", "running")
# Of a train: the task that lets it depart, with or without asking.
_DEPARTURES = ("approve", "depart")
_COLUMNS = (
    Column("TRAIN"),
    Column("NEXT DEPARTURE"),
    Column("UNDER WAY", text=True),
    Column("MEMBER"),
    Column("READY"),
    Column("PRODUCTION"),
    Column("NOTE", text=True),
)


def trains(args: Namespace) -> None:
    """
    Print trains by members: the next departure, the release that is ready, and what production runs.

    Departures that are under way need a login.

    :raises DefinitionError: the services file cannot be used
    """
    definitions = load_services(services_file(args))
    under_way = _under_way(args, definitions.trains)
    rows: list[tuple[str, ...]] = []
    for train in definitions.trains:
        members = [_member(service) for service in definitions.services if service.train == train.name]
        first = (train.name, _next(train), under_way.get(train.name, "?"))
        for number, member in enumerate(members or [("-", "-", "-", "")]):
            rows.append((*(first if number == 0 else ("", "", "")), *member))
    print_table(_COLUMNS, rows)


def depart(args: Namespace) -> None:
    """
    Start a departure.

    :raises SystemExit: there is no such train, or Airflow refuses
    """
    dag_id = f"{TRAIN_PREFIX}{args.train}"
    with logged_in(args) as api:
        _check(api, args.train)
        run_id = start_run(api, dag_id, {"hold": args.hold or []})
        say(api.address(f"/dags/{quote(dag_id)}/runs/{quote(run_id)}"))


def cancel(args: Namespace) -> None:
    """
    Cancel a departure: reject it where it waits for an approval, else keep back members not deployed yet.

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
            say(f"{dag_id}, run {run_id} is rejected: nothing is deployed.")
            return
        _keep_back(api, dag_id, run_id, args.reason or "no reason given")
    say(f"{dag_id}, run {run_id} is cancelled: members that are not deployed yet stay behind.")


def _keep_back(api: AirflowApi, dag_id: str, run_id: str, reason: str) -> None:
    run = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"
    tasks = {task["task_id"] for task in api.rows(f"{run}/taskInstances", "task_instances")}
    departure = next(name for name in _DEPARTURES if name in tasks)

    def attempt(_: bool) -> None:
        content = {"key": CANCELLED, "value": reason}
        try:
            api.once("POST", f"{run}/taskInstances/{departure}/xcomEntries", json=content)
        except RefusedError as error:
            if error.status != 409:  # cancelled already, maybe by the attempt before
                raise

    api.repeated(attempt, unknown="The departure may be cancelled; it does no harm to repeat the command.")


def _meant(api: AirflowApi, dag_id: str, run_id: str | None) -> str:
    found = [str(run["dag_run_id"]) for run in _runs(api, dag_id)]
    meant = [one for one in found if run_id in (None, one)]
    if len(meant) == 1:
        return meant[0]
    if not found:
        raise SystemExit(f"No departure of {dag_id} is under way.")
    lines = [f"Say which departure of {dag_id}:", *(f"  --run-id {one}" for one in found)]
    raise SystemExit("\n".join(lines))


def _runs(api: AirflowApi, dag_id: str) -> Iterator[dict[str, Any]]:
    yield from api.rows(f"/dags/{quote(dag_id)}/dagRuns", "dag_runs", state=_UNDER_WAY)


def _of(question: dict[str, Any], run_id: str) -> bool:
    task_id = str(question["task_instance"]["task_id"])
    asks = task_id in _DEPARTURES or task_id.endswith(".approve")
    return asks and question["task_instance"]["dag_run_id"] == run_id


def _check(api: AirflowApi, train: str) -> None:
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
        return {train.name: _departures(api, train, waiting) for train in found}


def _departures(api: AirflowApi, train: Train, waiting: set[str]) -> str:
    try:
        runs = [str(run["dag_run_id"]) for run in _runs(api, f"{TRAIN_PREFIX}{train.name}")]
    except RefusedError as error:
        if error.status != 404:
            raise
        return "Airflow does not know it yet"
    shown = [f"{run_id}{' (waits for an approval)' if run_id in waiting else ''}" for run_id in runs]
    return ", ".join(shown) or "-"


def _next(train: Train) -> str:
    return local(train.next_departure(datetime.now(timezone.utc)), train.timezone)


def _member(service: Service) -> tuple[str, str, str, str]:
    """Return the name, the release that is ready, what production runs, and why that is not known."""
    from airflow_cd.exceptions import CdError
    from airflow_cd.releases.adapters import open_target
    from airflow_cd.trains.select import ready_release

    try:
        ref = ready_release(service)
        current = open_target(service, service.production).record().current
    except (CdError, OSError, ValueError) as error:
        return service.name, "?", "?", f"cannot be asked: {error}"
    runs = current.release.version if current else "-"
    new = ref is not None and (current is None or current.release.digest != ref.digest)
    return service.name, ref.version if ref is not None and new else "-", runs, ""
