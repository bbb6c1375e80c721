"""What targets decide by their record alone, however they change what runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_cd.exceptions import DeployConflictError, NoPreviousReleaseError
from airflow_cd.model.release import ReleaseName
from airflow_cd.targets.record import Deployed, Record

if TYPE_CHECKING:
    from airflow_cd.model.release import Release


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
    is_restorable: Callable[[Release], bool],
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


def _position_of(record: Record, to: str | None, is_restorable: Callable[[Release], bool], where: str) -> int:
    for position, deployed in enumerate(record.previous):
        release = deployed.release
        if (to is None or to == release.digest) and is_restorable(release):
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
