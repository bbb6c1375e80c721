"""The record of an environment: what runs, what ran, what is on its way, and how a rollout changes it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from airflow_cd.exceptions import DeployConflictError, NoPreviousReleaseError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.release import Release, ReleaseName
from airflow_cd.model.rollout import Plan, Progress
from airflow_cd.model.strategy import StrategyChoice

if TYPE_CHECKING:
    from airflow_cd.model.release import Release


class Deployed(Frozen):
    """
    One release as an environment runs it or ran it.

    :param place: which of several places of the environment it runs in, where the target has several (such
        as ``blue`` and ``green``)
    :param strategy: how it was brought
    :param content: digest of the objects that the target keeps for it, where it keeps any: they are checked
        against it whenever they are read
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
    content: str | None = None
    token: str | None = None
    measurements: tuple[Measurement, ...] = ()


class Hold(Frozen):
    """Automatic promotion is held off since a person went back to an older release."""

    by: str
    since: datetime
    reason: str | None = None


RolloutKind = Literal["deploy", "rollback"]


class Rollout(Frozen):
    """
    A release that is on its way in, at a target where that takes longer than a task should hold a slot.

    :param token: unique; a process whose token is no longer in the record must stop driving the rollout
    :param candidate: what is to run; for a rollback, what ran before
    :param progress: how far it is
    :param kind: whether it is a deployment or a rollback
    :param before: what can be gone back to when this is done, newest first
    :param hold: what is in the record when this is done
    :param fast: whether the strategy's steps are left out
    :param analyses: those that the strategy names, as they were when this began
    :param deadline: how long nothing may move while something should
    :param instances: how many instances of what runs there were when this began, where that is known
    """

    token: str
    candidate: Deployed
    progress: Progress
    kind: RolloutKind = "deploy"
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
    """
    Return what became of the rollout of this token.

    :param record: as it is now
    """
    if record.rollout is not None and record.rollout.token == token:
        return DeployOutcome("under way")
    if record.current is not None and record.current.token == token:
        return DeployOutcome("promoted")
    if record.aborted is not None and record.aborted.token == token:
        return DeployOutcome("aborted", record.aborted.reason)
    other = record.rollout.candidate if record.rollout is not None else record.current
    by = f"{other.release.version}, brought by {other.actor}, took its place" if other else "it was removed"
    return DeployOutcome("replaced", by)


def newly_deployed(record: Record, release: Release, actor: str, approval: str | None) -> Deployed:
    """Return a release as it is deployed now."""
    return Deployed(
        release=release,
        deployed_at=datetime.now(timezone.utc),
        actor=actor,
        approval=approval,
        replaced=_running_name(record),
    )


def _restored(record: Record, before: Deployed, *, bad: str, actor: str, reason: str | None) -> Deployed:
    return Deployed(
        release=before.release,
        deployed_at=datetime.now(timezone.utc),
        actor=actor,
        approval=before.approval,
        replaced=_running_name(record),
        rolled_back_from=bad,
        reason=reason,
        place=before.place,
        content=before.content,
        strategy=before.strategy,
    )


def _running_name(record: Record) -> ReleaseName | None:
    return ReleaseName.of(record.current.release) if record.current else None


def before_deploying(record: Record, release: Release) -> list[Deployed]:
    """Return what can be gone back to when the release runs, newest first."""
    history = [*([record.current] if record.current else []), *record.previous]
    return [one for one in history if one.release.digest != release.digest]


def gone_back(
    record: Record,
    is_restorable: Callable[[Deployed], bool],
    where: str,
    *,
    bad: str,
    to: str | None,
    actor: str,
    reason: str | None,
) -> tuple[Deployed, list[Deployed]]:
    """
    Return the release that is gone back to, and what can be gone back to then.

    :param bad: digest of what it replaces
    :param to: its digest; ``None`` is the newest one that can be gone back to
    :raises NoPreviousReleaseError: there is none
    """
    position = _position_of(record, to, is_restorable, where)
    restored = _restored(record, record.previous[position], bad=bad, actor=actor, reason=reason)
    return restored, list(record.previous[position + 1 :])


def _position_of(
    record: Record, to: str | None, is_restorable: Callable[[Deployed], bool], where: str
) -> int:
    for position, deployed in enumerate(record.previous):
        if to in (None, deployed.release.digest) and is_restorable(deployed):
            return position
    wanted = f"release {to}" if to else "release that ran before"
    raise NoPreviousReleaseError(f"{where} has no {wanted} to go back to; deploy a good commit instead")


def check_generation(record: Record, expected: int, release: Release, where: str) -> None:
    """:raises DeployConflictError: the record is not at the generation that a decision was based on"""
    if record.generation == expected:
        return
    now = record.current
    runs = f"{now.release.version}, deployed by {now.actor}" if now else "nothing"
    raise DeployConflictError(
        f"{release.version} was to replace generation {expected} of {where}, but that is at generation "
        f"{record.generation} now and runs {runs}"
    )


def begin_rollout(
    record: Record,
    deployed: Deployed,
    before: Sequence[Deployed],
    *,
    kind: RolloutKind,
    deadline: timedelta,
    hold: Hold | None,
    analyses: Mapping[str, Analysis],
    instances: int | None,
) -> Rollout:
    """
    Return the rollout of a release that begins now.

    :param before: releases that can be rolled back to when it is done, newest first
    :param hold: what the record's hold is when it is done
    :param analyses: those that the strategy names
    :param deadline: see :class:`Rollout`
    :param instances: see :class:`Rollout`
    """
    token, now = uuid.uuid4().hex, datetime.now(timezone.utc)
    rollout = Rollout(
        token=token,
        candidate=deployed.model_copy(update={"token": token}),
        before=tuple(before),
        progress=Plan().begin(now),
        # Where nothing runs there is nothing to compare with, and going back must not wait.
        fast=record.current is None or kind == "rollback",
        kind=kind,
        hold=hold,
        analyses=dict(analyses),
        deadline=deadline,
        instances=instances,
    )
    return rollout.model_copy(update={"progress": rollout.plan.begin(now)})


def rollout_of(record: Record, token: str) -> Rollout | None:
    """Return the rollout of this token, if it is under way."""
    rollout = record.rollout
    return rollout if rollout is not None and rollout.token == token else None


def with_progress(record: Record, progress: Progress) -> Record:
    """Return the record with its rollout so far."""
    assert record.rollout is not None, "there is one to be so far"
    return record.model_copy(update={"rollout": record.rollout.model_copy(update={"progress": progress})})


def promoted(record: Record, rollout: Rollout, progress: Progress) -> Record:
    """Return the record with what was on its way in as what runs."""
    current = rollout.candidate.model_copy(
        update={"deployed_at": datetime.now(timezone.utc), "measurements": progress.measurements}
    )
    return Record(
        generation=record.generation + 1,
        current=current,
        previous=rollout.before,
        hold=rollout.hold,
    )


def aborted(record: Record, rollout: Rollout, progress: Progress) -> Record:
    """Return the record without what was on its way in, but for why it did not make it."""
    why = Aborted(
        token=rollout.token,
        release=ReleaseName.of(rollout.candidate.release),
        actor=rollout.candidate.actor,
        at=datetime.now(timezone.utc),
        reason=progress.reason or "no reason given",
        measurements=progress.measurements,
    )
    return record.model_copy(update={"rollout": None, "aborted": why})


def check_over(record: Record, over: str | None, release: Release, where: str) -> None:
    """
    Make sure that what is on its way in is what a decision was about.

    :param over: token of the rollout that is to give way, ``None`` where there was none
    :raises DeployConflictError: it is another one
    """
    rollout = record.rollout
    if (rollout.token if rollout else None) == over:
        return
    if rollout is None:
        raise DeployConflictError(
            f"{release.version} was to replace a rollout in {where} that is over by now"
        )
    raise DeployConflictError(
        f"{where} is being deployed by another run: {rollout.candidate.actor} deploys "
        f"{rollout.candidate.release.version}"
    )


def refuse_during_rollback(record: Record, where: str) -> None:
    """:raises DeployConflictError: the place is being rolled back, which nothing may interrupt"""
    rollout = record.rollout
    if rollout is not None and rollout.kind == "rollback":
        raise DeployConflictError(
            f"{where} is being rolled back to {rollout.candidate.release.version} "
            f"by {rollout.candidate.actor}"
        )
