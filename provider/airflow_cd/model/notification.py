"""Whom a service tells of what, through which of Airflow's notifiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from airflow_cd.model.base import Frozen

Event = Literal[
    "approval_needed",
    "deployed",
    "rolled_back",
    "rollout_asks",
    "aborted",
    "drifted",
    "train_departed",
    "train_arrived",
    "nodes_unhealthy",
    "apis_removed",
    "namespaces_undeclared",
]
# Which of them a service tells of, which a train, and which a cluster.
OF_SERVICES: tuple[Event, ...] = (
    "approval_needed",
    "deployed",
    "rolled_back",
    "rollout_asks",
    "aborted",
    "drifted",
)
OF_TRAINS: tuple[Event, ...] = ("approval_needed", "train_departed", "train_arrived")
OF_CLUSTERS: tuple[Event, ...] = ("nodes_unhealthy", "apis_removed", "namespaces_undeclared")


class NotificationSettings(Frozen):
    """
    One notifier, and the events that it reports.

    :param events: the events that it reports. (Not ``on``, which YAML reads as true.)
    :param notifier: dotted path of a notifier's class, of any installed Airflow provider or of your own
    :param kwargs: what the class is made with; those it renders are templates that know ``cd`` beside
        Airflow's own names. Secrets belong into an Airflow connection, not here.
    :param environments: names of the environments it is about; empty means all of them
    """

    events: Annotated[tuple[Event, ...], Field(min_length=1)]
    notifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    environments: tuple[str, ...] = ()

    @field_validator("kwargs")
    @classmethod
    def _no_context(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if "context" in kwargs:
            raise ValueError("holds `context`, which Airflow fills in; remove it")
        return kwargs

    def check(self, possible: tuple[Event, ...], what: str) -> None:
        """
        Make sure that it can happen what this is to tell of.

        :param possible: what happens here
        :param what: says where that is
        :raises ValueError: it names another event
        """
        if never := [event for event in self.events if event not in possible]:
            raise ValueError(
                f"is to tell of {', '.join(never)}, which {what} never has; use {', '.join(possible)}"
            )

    def wants(self, event: str, environment: str) -> bool:
        """Return whether this notification is for the event in the environment of this name."""
        return event in self.events and (not self.environments or environment in self.environments)
