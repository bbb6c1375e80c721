"""``airflow cd gc``: removes artifacts and caches that nobody needs any more."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi, RefusedError, logged_in
from airflow_cd.cli.printing import Column, harmless, print_table, say
from airflow_cd.cli.status import services_file
from airflow_cd.exceptions import CdError
from airflow_cd.model.base import parse_duration
from airflow_cd.model.services_file.loader import Definitions, load_services
from airflow_cd.model.train import TRAIN_PREFIX

if TYPE_CHECKING:
    from airflow_cd.retention.artifacts import Options, UnfinishedRuns
    from airflow_cd.retention.report import Row

_UNFINISHED = ("queued", "running")
_NOT_FOUND = 404
_COLUMNS = (
    Column("SERVICE"),
    Column("WHAT"),
    Column("REMOVED"),
    Column("KEPT"),
    Column("WHY KEPT", text=True),
)


def gc(args: Namespace) -> None:
    """
    Remove, and print what was removed and kept.

    Stores, targets and caches are asked from this machine; Airflow is asked which runs have not ended.

    :raises DefinitionError: the services file cannot be used
    :raises SystemExit: with code 1 when something could not be looked at or removed
    """
    from airflow_cd.retention.collection import collect

    options = _options(args)
    definitions = load_services(services_file(args))
    chosen = _chosen(args, definitions)
    with logged_in(args) as api:
        unfinished = unfinished_runs(api, _dag_ids(definitions))
        rows = list(
            collect(
                definitions.services,
                unfinished,
                options,
                chosen,
                whole_file=not definitions.errors,
                say=_progress,
            )
        )
    _print(args, rows, options)
    for problem in definitions.errors:
        _progress(f"error  {problem}")
    if definitions.errors or not all(row.is_complete for row in rows):
        raise SystemExit(1)


def unfinished_runs(api: AirflowApi, current: Collection[str]) -> UnfinishedRuns:
    """
    Return what asks Airflow which runs have not ended.

    :param current: ids of the DAGs that there must be. Of others, a run that Airflow does not know is one
        that was deleted, with all that could use a release.
    """
    checked: set[str] = set()

    def unfinished(dag_id: str, run_ids: Collection[str]) -> Collection[str]:
        try:
            if dag_id in current and dag_id not in checked:
                api.get(f"/dags/{quote(dag_id)}")
                checked.add(dag_id)
            # Each by its name: a list of several pages is not complete when runs end meanwhile.
            return {run_id for run_id in run_ids if _state(api, dag_id, run_id) in _UNFINISHED}
        except SystemExit as error:
            raise CdError(f"{dag_id}: {error}") from error

    return unfinished


def _state(api: AirflowApi, dag_id: str, run_id: str) -> str | None:
    try:
        return str(api.get(f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}")["state"])
    except RefusedError as error:
        if error.status != _NOT_FOUND:
            raise
        return None


def _dag_ids(definitions: Definitions) -> set[str]:
    pipelines = {f"{service.name}_{service.pipeline}" for service in definitions.services}
    return pipelines | {f"{TRAIN_PREFIX}{train.name}" for train in definitions.trains}


def _options(args: Namespace) -> Options:
    from airflow_cd.retention.artifacts import Options

    if args.keep is not None and args.keep < 1:
        raise SystemExit(f"--keep {args.keep} is below 1: give how many of the newest releases are kept")
    return Options(
        dry_run=args.dry_run,
        keep=args.keep,
        younger_than=_duration("--older-than", args.older_than),
        unrecorded=_duration("--unrecorded", args.unrecorded),
    )


def _duration(flag: str, value: str | None) -> timedelta | None:
    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise SystemExit(f"{flag} {value} {error}") from error


def _chosen(args: Namespace, definitions: Definitions) -> set[str] | None:
    if not args.service:
        return None
    if unknown := set(args.service) - {service.name for service in definitions.services}:
        raise SystemExit(f"No such service in {services_file(args)}: {', '.join(sorted(unknown))}")
    return set(args.service)


def _print(args: Namespace, rows: Sequence[Row], options: Options) -> None:
    if args.json:
        say(json.dumps({"dry_run": options.dry_run, "rows": [row.to_json() for row in rows]}))
        return
    print_table(_COLUMNS, [(row.service, row.what, str(row.removed), str(row.kept), row.why) for row in rows])
    if options.dry_run:
        say("Nothing was removed: this is what would be, without --dry-run.")


def _progress(text: str) -> None:
    with suppress(OSError):  # nobody reads standard error
        print("\n".join(harmless(line) for line in text.splitlines()), file=sys.stderr, flush=True)
