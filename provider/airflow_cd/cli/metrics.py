"""``airflow cd metrics``: the DORA metrics of production, by the asset events of the environments."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_cd.cli.api import AirflowApi, logged_in
from airflow_cd.cli.printing import Column, print_table, say
from airflow_cd.cli.status import chosen_services
from airflow_cd.model.base import format_age
from airflow_cd.model.history import Change, Measures, changes_of, measure

_ALL = "all services"
_COLUMNS = (
    Column("SERVICE"),
    Column("DEPLOYMENTS"),
    Column("A DAY"),
    Column("LEAD TIME"),
    Column("FAILED"),
    Column("FAILURE RATE"),
    Column("TIME TO RESTORE"),
)


def metrics(args: Namespace) -> None:
    """
    Print the four metrics of each service and of all together, and emit them as Airflow's metrics.

    :raises SystemExit: with a message, when Airflow refuses, or there is no such service
    :raises DefinitionError: the services file cannot be used
    """
    if args.days <= 0:
        raise SystemExit(f"--days {args.days:g} is not above 0: give the number of days to look back")
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
        say(json.dumps(_json(measured, overall, since, until)))
        return
    print_table(_COLUMNS, [_row(name, one) for name, one in {**measured, _ALL: overall}.items()])


def changes_since(api: AirflowApi, environments: Mapping[str, str], since: datetime) -> list[Change]:
    """Return the changes of these environments (service -> environment) since then."""
    events: list[dict[str, Any]] = []
    # One question for many services, since each takes its time; for a few, their own events only.
    few = len(environments) <= 10
    for prefix in [f"cd/{name}/{where}" for name, where in environments.items()] if few else ["cd/"]:
        wanted = {"name_prefix_pattern": prefix, "timestamp_gte": since.isoformat(), "order_by": "timestamp"}
        events += api.rows("/assets/events", "asset_events", **wanted)
    return [one for one in changes_of(events) if environments.get(one.service) == one.environment]


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


def _row(name: str, measures: Measures) -> tuple[str, ...]:
    rate = measures.change_failure_rate
    return (
        name,
        str(measures.deployments),
        f"{measures.deployment_frequency:.2f}",
        _age(measures.lead_time),
        str(measures.failed),
        "-" if rate is None else f"{rate:.0%}",
        _age(measures.time_to_restore),
    )


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else format_age(timedelta(seconds=seconds))
