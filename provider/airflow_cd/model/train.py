"""Release trains: their configuration, and the manifest of what a train takes along or leaves behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.approval import Approval
from airflow_cd.model.base import Frozen, Name
from airflow_cd.model.notification import OF_TRAINS, NotificationSettings
from airflow_cd.model.release import Digest, Release, ReleaseName
from airflow_cd.model.text import cell, escape
from airflow_cd.model.window import Cron, ZoneName, instant

_MOST_COMMITS = 5
_LONGEST_NOTE = 1000  # characters


class TrainRelease(Frozen):
    """
    A release on board, and what it replaces (``None``: the first release of its service).

    :param manifest: digest of the release's manifest in the artifact store
    :param went_wrong: what went wrong with this service's releases lately, a sentence each
    """

    release: Release
    manifest: Digest
    running: ReleaseName | None = None
    went_wrong: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """Return the name of the service."""
        return self.release.service


class TrainManifest(Frozen):
    """
    The passengers of one departure, by service.

    :param absent: name of each member that is not on board -> why
    """

    train: str
    passengers: tuple[TrainRelease, ...] = ()
    absent: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Return the digest that an approval is bound to; it covers every release manifest on board."""
        content = sorted((passenger.service, passenger.manifest) for passenger in self.passengers)
        return "sha256:" + hashlib.sha256(json.dumps([self.train, content]).encode()).hexdigest()

    @property
    def authors(self) -> tuple[str, ...]:
        """Return the e-mail addresses of all whose work is on board."""
        return tuple(dict.fromkeys(one for passenger in self.passengers for one in passenger.release.authors))

    def summary(self) -> dict[str, Any]:
        """Return it as JSON: its digest, ``on_board`` (service -> version), ``absent`` (service -> why)."""
        return {
            "manifest": self.digest,
            "on_board": {one.service: one.release.version for one in self.passengers},
            "absent": dict(self.absent),
        }

    def note(self) -> str:
        """Return what the run's note says: no longer than Airflow takes."""
        lines = self.lines() or ["nothing was on board"]
        text = "\n".join(lines)
        while len(text) > _LONGEST_NOTE:
            lines.pop()
            text = "\n".join([*lines, "and others: see the log"])
        return text

    def lines(self) -> list[str]:
        """Return what a log says of it."""
        told = [f"{one.service}: {_from(one)} -> {one.release.version}" for one in self.passengers]
        return [*told, *(f"{service}: not on board, {why}" for service, why in sorted(self.absent.items()))]

    def subject(self) -> str:
        """Return the one-line question."""
        count = len(self.passengers)
        return f"Let the train {self.train} depart with {count} release{'s' if count != 1 else ''}?"

    def body(self) -> str:
        """Return what an approver reads, as Markdown."""
        rows = ["| service | from | to | tests | risk |", "|---|---|---|---|---|"]
        rows += [_row(passenger) for passenger in self.passengers]
        parts = [f"Manifest: `{self.digest}`", "\n".join(rows)]
        parts += [_changes(passenger.release) for passenger in self.passengers]
        if self.absent:
            stays = [f"- {escape(service)}: {escape(why)}" for service, why in sorted(self.absent.items())]
            parts.append("**Not on board**\n\n" + "\n".join(stays))
        return "\n\n".join(parts)


def _from(passenger: TrainRelease) -> str:
    return passenger.running.version if passenger.running else "nothing"


def _row(passenger: TrainRelease) -> str:
    release = passenger.release
    cells = [
        escape(release.service),
        escape(_from(passenger)),
        f"{escape(release.version)} (`{release.short}`)",
        _tests(release),
        escape(_risk(passenger)),
    ]
    return f"| {' | '.join(cell(text) for text in cells)} |"


def _risk(passenger: TrainRelease) -> str:
    """Say how large the change is, how long it has grown, and what went wrong before."""
    release = passenger.release
    if release.since is None:
        return "; ".join(["first release", *passenger.went_wrong])
    commits, people = len(release.changelog), len(release.authors)
    size = f"{commits} commit{'s' * (commits != 1)} by {people} author{'s' * (people != 1)}"
    if commits:
        since = min(commit.committed_at for commit in release.changelog)
        size += f" since {since:%Y-%m-%d}"
    return "; ".join([size, *passenger.went_wrong])


def _tests(release: Release) -> str:
    total = sum(totals.total for totals in release.tests.values())
    passed = sum(totals.passed for totals in release.tests.values())
    return f"{passed} of {total} passed" if release.tests else "none"


def _changes(release: Release) -> str:
    lines = [
        f"- `{commit.short}` {escape(commit.subject)} ({escape(commit.author_name)})"
        for commit in release.changelog[:_MOST_COMMITS]
    ]
    if (more := len(release.changelog) - _MOST_COMMITS) > 0:
        lines.append(f"- and {more} more")
    return f"**{escape(release.service)}**\n\n" + ("\n".join(lines) or "- no commits that touch it")


# What the id of a train's DAG begins with.
TRAIN_PREFIX = "train_"
# Task groups of a train in which each member has one task, of its own name: it boards, it goes back, and it
# goes back because of another member.
BOARDING, BACK, RECALL = "board", "rollback", "recall"
# XCom key of the task that let the train depart: who cancelled it since, and why.
CANCELLED = "cancelled"


class Order(Frozen):
    """
    ``service`` is deployed after all of ``after``.

    :param after: the services that are deployed first
    :param service: the service that waits for them
    """

    after: tuple[Name, ...] = Field(min_length=1)
    service: Name


class Train(Frozen):
    """
    A scheduled departure of the services that name this train.

    :param name: name of the train; its DAG is ``train_<name>``
    :param schedule: cron expression of the departures, in ``timezone``
    :param timezone: zone of ``schedule``
    :param approve: one question for the whole ``train``, or one per ``service`` that is on board
    :param approval: who is asked; ``None`` asks by the members' own policies
    :param order: which service is deployed after which
    :param max_parallel: how many services are deployed side by side
    :param on_failure: what is rolled back when one fails: it alone, it and its dependents, or all
    :param notify: notifications of its departures and arrivals
    """

    name: Name
    schedule: Cron
    timezone: ZoneName = "UTC"
    approve: Literal["train", "service"] = "train"
    approval: Approval | None = None
    order: tuple[Order, ...] = ()
    max_parallel: int = Field(4, ge=1)
    on_failure: Literal["service", "dependents", "train"] = "dependents"
    notify: tuple[NotificationSettings, ...] = ()

    def next_departure(self, after: datetime) -> datetime:
        """
        Return when it departs by its schedule.

        :param after: an aware time
        """
        from croniter import croniter

        here = after.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)
        return instant(croniter(self.schedule, here).get_next(datetime), self.timezone)

    @field_validator("notify")
    @classmethod
    def _told_of_trains(cls, notify: tuple[NotificationSettings, ...]) -> tuple[NotificationSettings, ...]:
        for notification in notify:
            notification.check(OF_TRAINS, "a train")
        return notify


def predecessors(order: Iterable[Order]) -> dict[str, set[str]]:
    """
    Return all that arrive before each service is deployed, directly or by way of others.

    A member in between that is not on board, or not there at all, does not make them independent.
    """
    direct: dict[str, set[str]] = {}
    for rule in order:
        direct.setdefault(rule.service, set()).update(rule.after)
    found: dict[str, set[str]] = {}
    for service in direct:
        open_, seen = list(direct[service]), set[str]()
        while open_:
            if (name := open_.pop()) not in seen:
                seen.add(name)
                open_ += direct.get(name, ())
        found[service] = seen
    return found


def departure_order(members: Iterable[str], order: Sequence[Order]) -> tuple[tuple[str, ...], ...]:
    """
    Return the members in layers: each is deployed when the layers before it are.

    :raises DefinitionError: the order has a cycle, which the message names
    """
    sorter: TopologicalSorter[str] = TopologicalSorter({member: () for member in members})
    for rule in order:
        sorter.add(rule.service, *rule.after)
    try:
        sorter.prepare()
    except CycleError as error:
        # Each name in graphlib's cycle comes before the next one.
        cycle = " -> ".join(error.args[1])
        raise DefinitionError(
            f"the order has a cycle: {cycle}", remedy="Remove one of these `after` entries"
        ) from error
    layers = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        layers.append(tuple(ready))
        sorter.done(*ready)
    return tuple(layers)
