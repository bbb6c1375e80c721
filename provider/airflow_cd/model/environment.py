"""Environments: where a service's releases are deployed, and what lets them in."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from airflow_cd.model.approval import Approval, UserId
from airflow_cd.model.base import Frozen, Name
from airflow_cd.model.drift import DriftPolicy
from airflow_cd.model.health import HealthCheck, MonitorSettings
from airflow_cd.model.signing import VerificationSettings
from airflow_cd.model.strategy import Strategy
from airflow_cd.model.target import TargetChoice
from airflow_cd.model.window import Window


class Environment(Frozen):
    """
    One stage on the way to production; the last one of a service is its production.

    :param name: name of the environment, such as ``staging``
    :param target: where its releases run
    :param health: checks that a release must pass after it is deployed
    :param monitor: how its health checks go on after the pipeline ended; ``None`` means that they end
    :param strategy: how it changes from one release to the next; ``None`` is what its target does by itself
    :param approval: who decides about a release before it is deployed; ``None`` asks nobody
    :param windows: when deployments are allowed or denied; without any, always allowed
    :param when_closed: whether a deployment that a window or a freeze denies waits for the opening, or fails
    :param window_approvers: Airflow user ids who may let a waiting release in before the opening; empty
        means nobody
    :param verify: the keys whose signature a release must have; ``None`` demands no signature
    :param drift: whether manual changes of the deployed objects are reported or healed; ``None`` means that
        no check runs
    """

    name: Name
    target: TargetChoice
    health: tuple[HealthCheck, ...] = ()
    monitor: MonitorSettings | None = None
    strategy: Strategy | None = None
    approval: Approval | None = None
    windows: tuple[Window, ...] = ()
    when_closed: Literal["wait", "fail"] = "wait"
    window_approvers: tuple[UserId, ...] = ()
    verify: VerificationSettings | None = None
    drift: DriftPolicy | None = None

    @model_validator(mode="after")
    def _something_to_monitor(self) -> Environment:
        if self.monitored and not self.health:
            raise ValueError("has `monitor` but no `health` checks to go on with; list some, or remove it")
        return self

    @model_validator(mode="after")
    def _something_to_override(self) -> Environment:
        if self.window_approvers and self.when_closed == "fail":
            raise ValueError(
                "has `window_approvers`, who are asked while a release waits, and `when_closed: fail`, where "
                "none waits; remove one of them"
            )
        return self

    @property
    def monitored(self) -> bool:
        """Return whether its releases are watched after their pipeline ended."""
        return self.monitor is not None and self.monitor.rollback
