"""How a record changes while a rollout goes on. Nothing is done here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.model.progress import Progress
from airflow_cd.model.release import ReleaseName
from airflow_cd.model.rollout import Plan
from airflow_cd.targets.record import Aborted, Deployed, Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.model.release import Release


def begun(record: Record, deployed: Deployed, before: Sequence[Deployed], **how: Any) -> Rollout:
    """
    Return the rollout of a release that begins now.

    :param before: what can be gone back to when it is done
    :param how: further fields of the rollout
    """
    token, now = uuid.uuid4().hex, datetime.now(timezone.utc)
    rollout = Rollout(
        token=token,
        candidate=deployed.model_copy(update={"token": token}),
        before=tuple(before),
        progress=Plan().begin(now),
        # Where nothing runs there is nothing to compare with, and going back must not wait.
        fast=record.current is None or how["kind"] == "rollback",
        **how,
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
        f"{where} is being deployed by somebody else: {rollout.candidate.actor} brings "
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
