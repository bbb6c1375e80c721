"""Retries while another task changes the same environment."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import DeployConflictError

if TYPE_CHECKING:
    from airflow.sdk import Context


class RetryOnConflictMixin:
    """
    Lets an operator wait in the triggerer while another run changes its environment, and then decide again.

    Waiting takes no worker slot and none of the task's retries: how long the other one takes (to become
    ready, or to drain) is not this release's fault.
    """

    log: Any
    defer: Any

    def in_turn(self, context: Context) -> dict[str, Any]:
        """Do the work, or wait and let :meth:`next_turn` try again."""
        try:
            return self.take_turn(context)
        except DeployConflictError as error:
            self._wait(error)
            raise  # never reached: waiting leaves the task

    def next_turn(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Decide again, from the beginning."""
        return self.in_turn(context)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Do the work. :raises DeployConflictError: another run holds the environment"""
        raise NotImplementedError

    def _wait(self, conflict: DeployConflictError) -> None:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        from airflow_cd.triggers.defer_delay import defer_delay_seconds

        delay = timedelta(seconds=defer_delay_seconds())
        self.log.info("%s. Retrying in %g s.", conflict, delay.total_seconds())
        self.defer(trigger=TimeDeltaTrigger(delay), method_name="next_turn")
