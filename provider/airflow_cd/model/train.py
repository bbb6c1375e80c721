"""Release trains: several services that reach production together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.approval import Approval
from airflow_cd.model.base import Frozen
from airflow_cd.model.fields import Name
from airflow_cd.model.notification import OF_TRAINS, NotificationSettings
from airflow_cd.model.wall_clock import ZoneName, instant
from airflow_cd.model.window import Cron

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
        """Return when it departs by its schedule. :param after: an aware time"""
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
