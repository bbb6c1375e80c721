"""Whether what a services file defines fits together: names, addresses, and who is on which train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.findings import ErrorCollector
from airflow_cd.model.messages import closest
from airflow_cd.model.service import Service
from airflow_cd.model.train import Train, departure_order


def check_names(found: ErrorCollector, what: str, entries: list[Any]) -> None:
    """Report names that occur twice. :param what: ``service``, say, for entries under ``services``"""
    first: dict[str, int] = {}
    for i, raw in enumerate(entries):
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            line, _ = found.document.line((f"{what}s", first[name], "name"))
            found.report(
                (f"{what}s", i, "name"),
                f"there are two {what}s of this name, the other one in line {line}",
                name,
                "Rename one of them",
            )
        else:
            first[name] = i


def check_addresses(found: ErrorCollector, services: Mapping[int, Service]) -> None:
    """Report environments that would use another one's address, such as a port."""
    owners: dict[tuple[str, ...], str] = {}
    for i, service in services.items():
        for n, environment in enumerate(service.environments):
            settings, key = environment.target.settings, environment.target.settings.address_key
            # Objects of a cluster name their owner themselves: that target has no such address.
            if settings.address is None:
                continue
            here = f"{service.name} in {environment.name}"
            owner = owners.setdefault(settings.address, here)
            if owner != here:
                found.report(
                    ("services", i, "environments", n, "target", environment.target.kind, key),
                    f"{here} and {owner} would {'listen on' if key == 'port' else 'use'} the same {key}",
                    getattr(settings, key, None),
                    f"Choose another {key}",
                    service=service.name,
                )


def check_trains(
    found: ErrorCollector,
    services: Mapping[int, Service],
    trains: dict[int, Train],
    *,
    named: set[str],
    broken_members: Mapping[str, set[str]],
) -> None:
    """
    Report members without a train and orders that cannot be kept; take the trains of those out.

    :param named: names of all trains of the file, those with errors too
    :param broken_members: by train, members with errors of their own: that they are missing is told already
    """
    members: dict[str, set[str]] = {train.name: set() for train in trains.values()}
    for i, service in services.items():
        if service.train is None:
            continue
        if service.train in members:
            members[service.train].add(service.name)
        elif service.train not in named:
            found.report(
                ("services", i, "train"),
                f"service {service.name!r} names a train that does not exist",
                service.train,
                f"{closest(service.train, list(members))}Add it under `trains:`, or remove this line",
                service=service.name,
            )
    for i, train in list(trains.items()):
        before = len(found.errors)
        _check_order(found, i, train, members[train.name] | broken_members.get(train.name, set()))
        if len(found.errors) > before:  # one without its order would deploy in another one
            del trains[i]


def _check_order(found: ErrorCollector, i: int, train: Train, members: set[str]) -> None:
    for n, rule in enumerate(train.order):
        for name in (rule.service, *rule.after):
            if name not in members:
                found.report(
                    ("trains", i, "order", n),
                    f"the order of train {train.name!r} names a service that is not on it",
                    name,
                    f"{closest(name, sorted(members))}Add `train: {train.name}` to that service",
                )
    try:
        departure_order(members, train.order)
    except DefinitionError as error:
        found.report(("trains", i, "order"), f"train {train.name!r}: {error.problem}", remedy=error.remedy)
