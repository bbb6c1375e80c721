"""What a target does: it runs releases, and holds the truth about what runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from airflow_cd.exceptions import TargetError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.release import Release
from airflow_cd.model.rollout import RolloutAnswer
from airflow_cd.model.subject import Subject
from airflow_cd.targets.record import Hold, Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.stores.base import ArtifactStore


ClientFactory = Callable[[str | None, str | None], Any]


def _no_secret(conn_id: str) -> str:
    raise TargetError(f"connection {conn_id!r} cannot be read: no connections are available here")


@dataclass(frozen=True)
class Access:
    """
    What targets receive from the machine and the Airflow that use them.

    :param data_dir: folder for what targets keep on this machine
    :param unpack: writes a release's archive (first argument) to a new folder (second argument)
    :param secret: returns the password of the connection of this id
    :param clients: factories of API clients from Airflow connections, by name; see :meth:`client_factory`
    """

    data_dir: Path
    unpack: Callable[[Path, Path], None]
    secret: Callable[[str], str] = _no_secret
    clients: Mapping[str, ClientFactory] = field(default_factory=dict)

    def client_factory(self, name: str) -> ClientFactory:
        """
        Return what creates a client of a service, from two arguments that can be ``None``.

        ``docker``: address of an engine, connection id of a registry login; a ``docker.DockerClient``.
        ``kubernetes``: connection id, context of its kubeconfig; a ``kubernetes.client.ApiClient``.
        ``kubernetes_watch``: the same, a ``kubernetes_asyncio.client.ApiClient`` that the caller must close.

        :raises TargetError: there is none here
        """
        try:
            return self.clients[name]
        except KeyError:
            known = ", ".join(sorted(self.clients)) or "none"
            raise TargetError(f"there are no clients of {name!r} here; available: {known}") from None


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


class Changes(Protocol):
    """What tells that something may have changed where a rollout happens."""

    async def wait(self, seconds: float) -> None:
        """Return when something may have changed since the last call, or after so many seconds."""


@runtime_checkable
class ProgressiveTarget(Target, Protocol):
    """
    A target whose changes take longer than a task should hold a slot: they go on in the triggerer.

    ``deploy`` and ``rollback`` begin a change and see it through; these methods do so piece by piece.
    """

    def begin(
        self,
        release: Release,
        store: ArtifactStore,
        *,
        expected: int,
        over: str | None,
        actor: str,
        approval: str | None = None,
        analyses: Mapping[str, Analysis] | None = None,
    ) -> Record:
        """
        Begin to make ``release`` the one that runs, or go on where that began before.

        Where the digest runs already, or is on its way in, nothing new begins.

        :param expected: the record's generation on which the caller's decision is based
        :param over: token of the rollout that is to give way to this one, as the caller saw it
        :param analyses: by name, those that the environment's strategy needs
        :return: the record; its ``rollout`` is ``None`` when there is nothing to wait for
        :raises DeployConflictError: the lease is held by another, or the record is not as expected
        :raises ArtifactNotFoundError: what the release consists of is gone
        :raises ArtifactCorruptError: it is not the release's; nothing was changed
        """

    def begin_rollback(
        self,
        *,
        bad: str,
        actor: str,
        to: str | None = None,
        reason: str | None = None,
        hold: Hold | None = None,
    ) -> Record:
        """
        Begin to put the release that ran before ``bad`` back, without any steps on the way.

        When ``bad`` is on its way in, that is aborted. Otherwise as :meth:`Target.rollback`.
        """

    def advance(
        self, token: str, *, measurements: Sequence[Measurement] = (), answer: RolloutAnswer | None = None
    ) -> Record:
        """
        Look, decide, act, and return the record. To be called until the rollout of this token is over.

        :raises DeployConflictError: the lease is held by another; call again
        """

    def abort(self, *, actor: str, reason: str, token: str | None = None) -> Record:
        """
        Begin to give everything back to what ran before; does nothing when nothing is on its way in.

        :param token: of the rollout that is meant; ``None`` is any
        """

    def converge(self) -> Record:
        """Bring about what the record says, where nothing is on its way in, as far as it is not so."""

    def subject(self, rollout: Rollout) -> Subject:
        """Return what analyses of this rollout are about."""

    def watching(self) -> AbstractAsyncContextManager[Changes]:
        """Watch the place, on the running event loop."""


class Difference(NamedTuple):
    """
    One object that is not as it was or is to be set.

    :param name: kind and name
    :param text: unified diff, from what is there to what was or is to be set
    """

    name: str
    text: str


@runtime_checkable
class DeclarativeTarget(ProgressiveTarget, Protocol):
    """A declarative target: it compares the desired state with what is there."""

    def preview(self, release: Release, store: ArtifactStore) -> list[Difference]:
        """
        Return what deploying ``release`` would change, as the place itself sees it. Nothing is changed.

        :raises ArtifactNotFoundError: what the release consists of is gone
        """

    def drift(self) -> list[Difference]:
        """Return what is not as the running release set it."""

    def heal(self) -> Record:
        """Restore what differs from what the running release set."""
