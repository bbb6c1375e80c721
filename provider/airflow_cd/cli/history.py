"""``airflow cd history``: what was deployed and rolled back, by the asset events of the environments."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import datetime, timedelta
from typing import Any

from airflow_cd.cli.api import AirflowApi, logged_in
from airflow_cd.cli.printing import Column, print_table, say
from airflow_cd.model.base import format_age
from airflow_cd.model.history import Change, changes_of

_COLUMNS = (
    Column("WHEN"),
    Column("ENVIRONMENT"),
    Column("CHANGE"),
    Column("FROM"),
    Column("TO"),
    Column("COMMIT", text=True),
    Column("LEAD TIME"),
    Column("BY", text=True),
    Column("WHY", text=True),
)


def history(args: Namespace) -> None:
    """
    Print the changes of a service's environments, newest first, as a table or (``--json``) one per line.

    :raises SystemExit: with a message, when the service has no history
    """
    with logged_in(args) as api:
        found = changes(api, args.service, args.environment, args.limit)
    if not found:
        where = f"{args.service} in {args.environment}" if args.environment else args.service
        raise SystemExit(f"No deployment of {where} is on record.")
    if args.json:
        for change in found:
            say(json.dumps(change.model_dump(mode="json")))
        return
    print_table(_COLUMNS, [_row(change) for change in found])


def changes(api: AirflowApi, service: str, environment: str | None, limit: int) -> list[Change]:
    """Return the newest changes, newest first, without repeated events."""
    found: list[Change] = []
    for asset in _assets(api, service, environment):
        events = api.get("/assets/events", asset_id=asset["id"], order_by="-timestamp", limit=limit)
        found += changes_of(events["asset_events"])
    return sorted(found, key=lambda change: change.at, reverse=True)[:limit]


def _assets(api: AirflowApi, service: str, environment: str | None) -> list[dict[str, Any]]:
    prefix = f"cd/{service}/"
    answer = api.get("/assets", name_pattern=prefix, only_active=False, limit=100)
    wanted = [
        asset
        for asset in answer["assets"]
        # cd/<service>/<environment>; what goes deeper is about alarms.
        if asset["name"].startswith(prefix) and asset["name"].count("/") == 2
    ]
    return [asset for asset in wanted if environment is None or asset["name"] == prefix + environment]


def _row(change: Change) -> tuple[str, ...]:
    lead = "-" if change.lead_time is None else format_age(timedelta(seconds=change.lead_time))
    return (
        _local(change.at),
        change.environment,
        change.kind,
        change.replaced.version if change.replaced else "-",
        change.release.version,
        f"{change.release.revision[:8]} {change.release.subject}",
        lead,
        change.user or change.actor,
        change.reason or change.approval or "",
    )


def _local(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
