"""What a target does: it runs releases, and holds the truth about what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_cd.exceptions import TargetError
from airflow_cd.model.base import Frozen
from airflow_cd.model.release import Release, ReleaseName

if TYPE_CHECKING:
    from docker import DockerClient

    from airflow_cd.artifacts.base import ArtifactStore


def _no_client(engine: str | None, conn_id: str | None) -> DockerClient:
    raise TargetError("no Docker engine can be used here")


def _no_secret(conn_id: str) -> str:
    raise TargetError(f"no connection can be read here, so not {conn_id!r}")


@dataclass(frozen=True)
class Access:
    """
    What targets are given of the machine and the Airflow they are used from.

    :param data_dir: folder for what targets keep on this machine
    :param unpack: writes a release's archive (first argument) to a new folder (second argument)
    :param docker_client: returns a client of an engine (its address, or ``None`` for the usual one) that is
        logged in by a connection (its id, or ``None``)
    :param secret: returns the password of the connection of this id
    """

    data_dir: Path
    unpack: Callable[[Path, Path], None]
    docker_client: Callable[[str | None, str | None], DockerClient] = _no_client
    secret: Callable[[str], str] = _no_secret


class Deployed(Frozen):
    """One release as an environment runs it or ran it."""

    release: Release
    deployed_at: datetime
    actor: str  # who did it: "<dag_id>/<run_id>", or a person
    # "approved by bob", "override", "window override by carol: <reason>"; None where nobody is asked
    approval: str | None = None
    replaced: ReleaseName | None = None  # what ran before
    rolled_back_from: str | None = None  # digest of the release this one replaced in a rollback
    reason: str | None = None  # why it was rolled back to


class Hold(Frozen):
    """Automatic promotion is held off since a person went back to an older release."""

    by: str
    since: datetime
    reason: str | None = None


class Record(Frozen):
    """
    What the target says about one service in one environment.

    :param generation: grows by one with every change; 0 means nothing was ever deployed. It is both the
        expected value of the compare-and-set and the fencing token.
    :param current: what runs now
    :param previous: what ran before, newest first, still restorable without an artifact store
    :param hold: set by a rollback that a person asked for; the next deployment lifts it
    """

    generation: int = 0
    current: Deployed | None = None
    previous: tuple[Deployed, ...] = ()
    hold: Hold | None = None


class Target(Protocol):
    """
    One service in one environment.

    Every method is idempotent and may be repeated after its process was killed at any point: the
    repetition finds what was done and finishes it.
    """

    def record(self) -> Record:
        """Return what runs here. Never waits for a lease."""

    def url(self) -> str | None:
        """Return where the service answers, without a trailing slash, or ``None``."""

    def deploy(
        self,
        release: Release,
        store: ArtifactStore,
        *,
        expected: int,
        actor: str,
        approval: str | None = None,
    ) -> Record:
        """
        Make ``release`` the one that runs: start it beside the old one, wait for it, switch, drain.

        Deploying the digest that already runs changes nothing but what is missing (a stopped process is
        started again) and returns the record as it is, whatever ``expected`` says.

        :param expected: the record's generation on which the caller's decision is based
        :raises DeployConflictError: the lease is held by another, or the generation is not ``expected``
        :raises NotReadyError: it did not become ready; what ran before was left serving
        :raises ArtifactNotFoundError: the archive is gone
        :raises ArtifactCorruptError: the archive is not the release's; nothing was changed
        """

    def rollback(
        self,
        *,
        bad: str,
        actor: str,
        to: str | None = None,
        reason: str | None = None,
        hold: Hold | None = None,
    ) -> Record:
        """
        Put the release that ran before ``bad`` back (or the digest ``to``), if ``bad`` is what runs.

        Needs neither artifact store nor source. When something else than ``bad`` runs, nothing is changed
        and the record is returned.

        :param reason: why; kept in the record
        :param hold: keeps automatic promotion off until it is lifted

        :raises NoPreviousReleaseError: there is nothing to go back to
        :raises DeployConflictError: the lease is held by another
        :raises NotReadyError: the previous release did not become ready
        """
