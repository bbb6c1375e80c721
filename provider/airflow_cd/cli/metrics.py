"""``airflow cd metrics``: the DORA metrics of production, by the asset events of the environments."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.console import Console
from rich.table import Table

from airflow_cd.cli.api import Api, logged_in
from airflow_cd.cli.status import chosen_services
from airflow_cd.model.base import format_age
from airflow_cd.model.change import Change, changes_of
from airflow_cd.model.dora import Measures, measure

_ALL = "all services"


def metrics(args: Namespace) -> None:
    """
    Print the four metrics of each service and of all together, and emit them as Airflow's metrics.

    :raises SystemExit: with a message, when Airflow refuses, or there is no such service
    :raises DefinitionError: the services file cannot be used
    """
    if args.days <= 0:
        raise SystemExit("--days is not above 0; give how many days are looked back on")
    services, _ = chosen_services(args)
    production = {one.name: args.environment or one.production.name for one in services}
    until = datetime.now(timezone.utc)
    since = until - timedelta(days=args.days)
    with logged_in(args) as api:
        found = changes_since(api, production, since)
    measured = {
        name: measure((one for one in found if one.service == name), since, until) for name in production
    }
    overall = measure(found, since, until)
    emit(measured, overall)
    if args.json:
        print(json.dumps(_json(measured, overall, since, until)))
        return
    Console(highlight=False, soft_wrap=True).print(_table({**measured, _ALL: overall}))


def changes_since(api: Api, environments: Mapping[str, str], since: datetime) -> list[Change]:
    """Return the changes of these environments (service -> environment) that were told since then."""
    extras: list[Any] = []
    # One question for many services, since each takes its time; for a few, their own events only.
    few = len(environments) <= 10
    for prefix in [f"cd/{name}/{where}" for name, where in environments.items()] if few else ["cd/"]:
        told = {"name_prefix_pattern": prefix, "timestamp_gte": since.isoformat(), "order_by": "timestamp"}
        extras += [event["extra"] for event in api.rows("/assets/events", "asset_events", **told)]
    return [one for one in changes_of(extras) if environments.get(one.service) == one.environment]


def emit(measured: Mapping[str, Measures], overall: Measures) -> None:
    """
    Emit gauges and timers where Airflow's metrics go; nowhere when ``[metrics]`` switches none on.

    The service stands in the name, since StatsD knows no tags, and in the tag ``service``.
    """
    from airflow.observability import stats
    from airflow.observability.metrics.stats_utils import get_stats_factory

    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)
    for name, one in [*measured.items(), (None, overall)]:
        prefix = f"cd.dora.{name}" if name else "cd.dora"
        tags = {"service": name} if name else None
        stats.gauge(f"{prefix}.deployment_frequency", one.deployment_frequency, tags=tags)
        if one.change_failure_rate is not None:
            stats.gauge(f"{prefix}.change_failure_rate", one.change_failure_rate, tags=tags)
        for metric, seconds in (("lead_time", one.lead_time), ("time_to_restore", one.time_to_restore)):
            if seconds is not None:
                stats.timing(f"{prefix}.{metric}", timedelta(seconds=seconds), tags=tags)


def _json(
    measured: Mapping[str, Measures], overall: Measures, since: datetime, until: datetime
) -> dict[str, Any]:
    return {
        "since": since.isoformat(),
        "until": until.isoformat(),
        "services": {name: one.model_dump(mode="json") for name, one in measured.items()},
        "overall": overall.model_dump(mode="json"),
    }


def _table(rows: Mapping[str, Measures]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in (
        "SERVICE",
        "DEPLOYMENTS",
        "A DAY",
        "LEAD TIME",
        "FAILED",
        "FAILURE RATE",
        "TIME TO RESTORE",
    ):
        table.add_column(title, overflow="fold")
    for name, one in rows.items():
        rate = "-" if one.change_failure_rate is None else f"{one.change_failure_rate:.0%}"
        table.add_row(
            name,
            str(one.deployments),
            f"{one.deployment_frequency:.2f}",
            _age(one.lead_time),
            str(one.failed),
            rate,
            _age(one.time_to_restore),
        )
    return table


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else format_age(timedelta(seconds=seconds))
