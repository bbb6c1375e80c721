"""Ends what ran before a blue/green switch, when it need not be gone back to at once any more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.operators.retry_on_conflict import retry_on_conflict
from airflow_cd.releases.run import actor_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service


class ScaleDownOperator(BaseOperator):
    """
    Waits, in the triggerer, until ``scale_down_delay`` is over, and lets the old release be scaled down.

    The target knows by its record what is to go on running; when something else was deployed meanwhile, or it
    was rolled back, the task skips itself.

    :param service: whose
    :param environment: name of the environment
    """

    template_fields: Sequence[str] = ()
    ui_color = "#f1f3f4"

    def __init__(self, *, service: Service, environment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.environment = environment

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Scale down, or wait for the time.

        :raises AirflowSkipException: something else runs by now
        """
        return retry_on_conflict(partial(self._try, context), self.log)

    def next_turn(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Decide again, from the beginning."""
        return self.execute(context)

    def _try(self, context: Context) -> dict[str, Any]:
        """
        Scale down if it is time.

        :raises DeployConflictError: another run changes the environment
        """
        from airflow_cd.releases.adapters import open_target
        from airflow_cd.targets.base import ProgressiveTarget

        environment = self.service.environment(self.environment)
        target = open_target(self.service, environment)
        assert isinstance(target, ProgressiveTarget), "only these have strategies"
        record = target.record()
        current = record.current
        if current is None or current.actor != actor_of(context) or record.rollout is not None:
            raise AirflowSkipException(f"{self.environment} runs something else by now, or will soon")
        strategy = current.strategy.blue_green if current.strategy else None
        if strategy is None:
            raise AirflowSkipException(f"{current.release.version} was not brought blue/green")
        left = current.deployed_at + strategy.scale_down_delay - datetime.now(timezone.utc)
        if left > timedelta():
            self._wait_for(left)
        target.converge()
        self.log.info("What ran before %s is scaled down", current.release.version)
        return {"generation": record.generation}

    def _wait_for(self, left: timedelta) -> None:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        from airflow_cd.triggers.defer_delay import defer_delay_seconds

        self.log.info("The release before stays ready for %.0f s more", left.total_seconds())
        delay = max(left, timedelta(seconds=defer_delay_seconds()))
        self.defer(trigger=TimeDeltaTrigger(delay), method_name="next_turn")
