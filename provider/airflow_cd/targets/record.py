"""What a target remembers of one service in one environment: what runs, what ran, and what is coming."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import Field

from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.progress import Progress
from airflow_cd.model.release import Release, ReleaseName
from airflow_cd.model.rollout import Plan
from airflow_cd.model.strategy import StrategyChoice


class Deployed(Frozen):
    """
    One release as an environment runs it or ran it.

    :param place: which of several places of the environment it runs in, where the target has several (such
        as ``blue`` and ``green``)
    :param strategy: how it was brought
    :param token: of the rollout that brought it, see :class:`Rollout`
    :param measurements: what it was judged by while it was rolled out
    """

    release: Release
    deployed_at: datetime
    actor: str  # who did it: "<dag_id>/<run_id>", or a person
    # "approved by bob", "override", "window override by carol: <reason>"; None where nobody is asked
    approval: str | None = None
    replaced: ReleaseName | None = None  # what ran before
    rolled_back_from: str | None = None  # digest of the release this one replaced in a rollback
    reason: str | None = None  # why it was rolled back to
    place: str | None = None
    strategy: StrategyChoice | None = None
    token: str | None = None
    measurements: tuple[Measurement, ...] = ()


class Hold(Frozen):
    """Automatic promotion is held off since a person went back to an older release."""

    by: str
    since: datetime
    reason: str | None = None


class Rollout(Frozen):
    """
    A release that is on its way in, at a target where that takes longer than a task should hold a slot.

    :param token: its own; whoever drives a rollout whose token is not in the record any more has to stop
    :param candidate: what is to run; for a rollback, what ran before
    :param progress: how far it is
    :param kind: whether it is a deployment or a rollback
    :param before: what can be gone back to when this is done, newest first
    :param hold: what is in the record when this is done
    :param fast: whether the strategy's steps are left out
    :param analyses: those that the strategy names, as they were when this began
    :param deadline: how long nothing may move while something should
    :param instances: how many instances of what runs there were when this began, where that can be told
    """

    token: str
    candidate: Deployed
    progress: Progress
    kind: Literal["deploy", "rollback"] = "deploy"
    before: tuple[Deployed, ...] = ()
    hold: Hold | None = None
    fast: bool = False
    analyses: dict[str, Analysis] = Field(default_factory=dict)
    deadline: Duration = timedelta(minutes=10)
    instances: int | None = None

    @property
    def plan(self) -> Plan:
        """Return what this goes through."""
        strategy = self.candidate.strategy
        steps = () if self.fast or strategy is None else strategy.steps
        return Plan(steps, self.analyses, self.deadline)


class Aborted(Frozen):
    """The last release that did not make it, and why. ``actor`` is who brought it."""

    token: str
    release: ReleaseName
    actor: str
    at: datetime
    reason: str
    measurements: tuple[Measurement, ...] = ()


class Record(Frozen):
    """
    What the target says about one service in one environment.

    :param generation: grows by one with every change; 0 means nothing was ever deployed. It is both the
        expected value of the compare-and-set and the fencing token.
    :param current: what runs now
    :param previous: what ran before, newest first, still restorable without an artifact store
    :param hold: set by a rollback that a person asked for; the next deployment lifts it
    :param rollout: what is on its way in; ``current`` is what would be gone back to
    :param aborted: the last rollout that was aborted, until another one begins
    """

    generation: int = 0
    current: Deployed | None = None
    previous: tuple[Deployed, ...] = ()
    hold: Hold | None = None
    rollout: Rollout | None = None
    aborted: Aborted | None = None


class DeployOutcome(NamedTuple):
    """What became of a rollout, and why."""

    state: Literal["under way", "promoted", "aborted", "replaced"]
    reason: str = ""


def outcome_of(record: Record, token: str) -> DeployOutcome:
    """Return what became of the rollout of this token. :param record: as it is now"""
    if record.rollout is not None and record.rollout.token == token:
        return DeployOutcome("under way")
    if record.current is not None and record.current.token == token:
        return DeployOutcome("promoted")
    if record.aborted is not None and record.aborted.token == token:
        return DeployOutcome("aborted", record.aborted.reason)
    other = record.rollout.candidate if record.rollout is not None else record.current
    by = f"{other.release.version}, brought by {other.actor}, took its place" if other else "it was removed"
    return DeployOutcome("replaced", by)
