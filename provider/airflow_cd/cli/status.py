"""``airflow cd status``: what runs where, by the targets' own records."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.cli.api import TOKEN_VARIABLE, AirflowApi, has_login, logged_in, stage_of, waiting_questions
from airflow_cd.cli.printing import Column, print_table, say
from airflow_cd.model.base import format_age
from airflow_cd.model.decision_requests import opening
from airflow_cd.model.services_file.loader import load_services

if TYPE_CHECKING:
    from airflow_cd.exceptions import DefinitionError
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.service import Service
    from airflow_cd.targets.record import Record

_UNKNOWN = "?"
_COLUMNS = (
    Column("SERVICE"),
    Column("ENVIRONMENT"),
    Column("RELEASE"),
    Column("COMMIT", text=True),
    Column("COMMIT AGE"),
    Column("DEPLOYED"),
    Column("WAITING"),
    Column("NOTE", text=True),
)


def status(args: Namespace) -> None:
    """
    Print services by environments: the running release, its commit and its age, waiting approvals, and why
    an environment is closed.

    Targets are asked from this machine; approvals need a login.

    :raises DefinitionError: the services file cannot be used
    """
    services, errors = chosen_services(args)
    waiting = None
    if has_login(args):
        with logged_in(args) as api:
            waiting = waiting_approvals(api)
    print_table(_COLUMNS, [row for service in services for row in _rows(service, waiting)])
    for problem in errors:
        say(f"error  {problem}")
    if waiting is None:
        say(f"Waiting approvals are shown with --user, or a token in {TOKEN_VARIABLE}.")


def chosen_services(args: Namespace) -> tuple[list[Service], tuple[DefinitionError, ...]]:
    """
    Return the services that are meant, and what is wrong with others in the file.

    :raises SystemExit: one that is named is not in the file
    """
    definitions = load_services(services_file(args))
    services = [one for one in definitions.services if not args.service or one.name in args.service]
    if unknown := set(args.service or ()) - {service.name for service in services}:
        raise SystemExit(f"No such service in {services_file(args)}: {', '.join(sorted(unknown))}")
    return services, definitions.errors


def services_file(args: Namespace) -> Path:
    """Return the services file that is meant: ``--file``, else the one in the DAG folder."""
    from airflow.configuration import conf

    return Path(args.file or Path(conf.get("core", "dags_folder")) / "services.yaml")


def waiting_approvals(api: AirflowApi) -> Counter[tuple[str, str]]:
    """Return how many releases wait, by DAG id and environment."""
    stages = (
        (question["task_instance"]["dag_id"], stage_of(question, "approve"))
        for question in waiting_questions(api)
    )
    return Counter((dag_id, stage) for dag_id, stage in stages if stage is not None)


def _rows(service: Service, waiting: Counter[tuple[str, str]] | None) -> Iterator[tuple[str, ...]]:
    for environment in service.environments:
        cells = _cells(service, environment)
        asked = _UNKNOWN
        if waiting is not None:
            asked = str(waiting[f"{service.name}_{service.pipeline}", environment.name] or "-")
        notes = "; ".join(filter(None, (_closed(service, environment), cells[-1])))
        yield service.name, environment.name, *cells[:-1], asked, notes


def _cells(service: Service, environment: Environment) -> tuple[str, ...]:
    """Return release, commit, its age, the deployment's age, and what else is to be known."""
    from airflow_cd.exceptions import CdError
    from airflow_cd.releases.adapters import open_target

    try:
        record = open_target(service, environment).record()
    except (CdError, OSError, ValueError) as error:
        return _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN, f"cannot be asked: {error}"
    if record.current is None:
        return "-", "-", "-", "-", _note(record)
    now, revision = datetime.now(timezone.utc), record.current.release.revision
    return (
        record.current.release.version,
        f"{revision.short} {revision.subject}",
        format_age(now - revision.committed_at),
        format_age(now - record.current.deployed_at),
        _note(record),
    )


def _closed(service: Service, environment: Environment) -> str:
    closed = service.closed(environment, datetime.now(timezone.utc))
    return f"closed: {closed.reason}; {opening(closed)}" if closed else ""


def _note(record: Record) -> str:
    notes = []
    if (coming := record.rollout) is not None:
        stands = coming.plan.described(coming.progress)
        notes.append(f"{coming.candidate.release.version} on its way in: {stands}")
    elif record.aborted is not None:
        notes.append(f"{record.aborted.release.version} was aborted: {record.aborted.reason}")
    if record.hold is not None:
        notes.append(f"held by {record.hold.by}: {record.hold.reason or 'no reason given'}")
    if record.current is not None and record.current.rolled_back_from is not None:
        notes.append(f"rolled back {record.current.reason or ''}".strip())
    return "; ".join(notes)
