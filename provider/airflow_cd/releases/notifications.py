"""Notifies people through Airflow's notifiers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_cd.model.cluster import Cluster
    from airflow_cd.model.history import Change
    from airflow_cd.model.notification import Event, NotificationSettings
    from airflow_cd.model.service import Service
    from airflow_cd.model.train import Train

log = logging.getLogger(__name__)

# A release does not wait any longer for a mail server that does not answer.
_LONGEST_SECONDS = 30.0


def notify(
    context: Any, service: Service, environment: str, event: Event, key: str, facts: Mapping[str, Any]
) -> None:
    """
    Tell those who want to know, once for each ``key``, also when the task is retried. Never raises.

    :param key: tells one such event of this task from another one
    :param facts: what templates find under ``cd``, beside event, service and environment
    """
    known = {**facts, "event": event, "service": service.name, "environment": environment}
    whom = [one if one.wants(event, environment) else None for one in service.notify]
    _notify(context, whom, f"{event}/{key}", known)


def notify_of_train(context: Any, train: Train, event: Event, key: str, facts: Mapping[str, Any]) -> None:
    """Tell those who want to know of a train, once for each ``key``. Never raises. As :func:`notify`."""
    known = {**facts, "event": event, "train": train.name}
    whom = [one if event in one.events else None for one in train.notify]
    _notify(context, whom, f"{event}/{key}", known)


def notify_of_cluster(
    context: Any, cluster: Cluster, event: Event, key: str, facts: Mapping[str, Any]
) -> None:
    """Tell those who want to know of a cluster, once for each ``key``. Never raises. As :func:`notify`."""
    known = {**facts, "event": event, "cluster": cluster.name}
    whom = [one if event in one.events else None for one in cluster.notify]
    _notify(context, whom, f"{event}/{key}", known)


def notify_of_change(context: Any, service: Service, change: Change | None, url: str | None) -> None:
    """
    Tell of a deployment or a rollback; of none, nothing. Never raises.

    :param url: where it answers
    """
    if change is None:
        return
    event: Event = "deployed" if change.kind == "deployed" else "rolled_back"
    facts = {**change.model_dump(mode="json"), "url": url}
    notify(context, service, change.environment, event, str(change.generation), facts)


def _notify(
    context: Any, whom: Sequence[NotificationSettings | None], what: str, facts: Mapping[str, Any]
) -> None:
    for number, notification in enumerate(whom):
        if notification is None:
            continue
        try:
            reported = f"told/{what}/{number}"
            state = context["task_state_store"]
            if state.get(reported):
                continue
            _tell(notification, {**context, "cd": facts})
            state.set(reported, True)
        except Exception as error:
            log.warning(
                "Notification %s through %s failed: %s", facts["event"], notification.notifier, _shown(error)
            )


def _tell(notification: NotificationSettings, context: dict[str, Any]) -> None:
    """Let it work in a thread: one that hangs is left behind, and ends with the task."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            _notifier(notification)(context)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work, name=notification.notifier, daemon=True)
    thread.start()
    thread.join(_LONGEST_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"it did not come to an end within {_LONGEST_SECONDS:g} s")
    if failures:
        raise failures[0]


def _notifier(notification: NotificationSettings) -> Any:
    from pkgutil import resolve_name

    from airflow.sdk import BaseNotifier

    kind = resolve_name(notification.notifier)
    if not (isinstance(kind, type) and issubclass(kind, BaseNotifier)):
        raise TypeError(
            f"{notification.notifier} is no notifier: it does not extend airflow.sdk.BaseNotifier"
        )
    return kind(**notification.kwargs)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
