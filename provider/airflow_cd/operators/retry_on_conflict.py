"""Retries while another run changes the same environment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from airflow.sdk.exceptions import TaskDeferred

from airflow_cd.exceptions import DeployConflictError

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

T = TypeVar("T")


def retry_on_conflict(work: Callable[[], T], log: Logger, method_name: str = "next_turn") -> T:
    """
    Return what the work returns; while another run changes the environment, wait in the triggerer.

    Waiting takes no worker slot and none of the task's retries: how long the other run takes (to become
    ready, or to drain) is not this release's fault.

    :param work: decides from the beginning each time it is called
    :param method_name: the operator's method that does the work again
    :raises TaskDeferred: another run changes the environment
    """
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

    from airflow_cd.triggers.defer_delay import defer_delay_seconds

    try:
        return work()
    except DeployConflictError as conflict:
        delay = timedelta(seconds=defer_delay_seconds())
        log.info("%s. Retrying in %g s.", conflict, delay.total_seconds())
        raise TaskDeferred(trigger=TimeDeltaTrigger(delay), method_name=method_name) from conflict
