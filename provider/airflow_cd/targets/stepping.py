"""What a target does whose changes take long; :mod:`airflow_cd.targets.progressive` decides when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from airflow_cd.model.progress import Observation
from airflow_cd.targets.record import Record, Rollout

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.release import Release
    from airflow_cd.model.strategy import StrategyChoice


class VersionedRecord(Protocol):
    """A record as it was read, with what a compare-and-set needs to replace it."""

    @property
    def record(self) -> Record:
        """Return the record."""


S = TypeVar("S", bound=VersionedRecord)


class RolloutBackend(ABC, Generic[S]):
    """
    The hands of a target.

    :param keep: how many previous releases can be gone back to
    """

    service: str
    environment: str
    keep: int

    @property
    def _where(self) -> str:
        return f"{self.service} in {self.environment}"

    def _names(self, rollout: Rollout) -> dict[str, str]:
        """Return what else of a :class:`~airflow_cd.model.subject.Subject` this kind of target has."""
        return {}

    def _instances(self, stored: S) -> int | None:
        """Return how many instances of what runs there are, where that is not for the release to say."""
        return None

    def _continue(self, stored: S) -> S:
        """Do what comes next within a phase, if anything does; returns what is stored then."""
        return stored

    @property
    @abstractmethod
    def _strategy(self) -> StrategyChoice | None:
        """Return how the environment changes from one release to the next."""

    @property
    @abstractmethod
    def _deadline(self) -> timedelta:
        """Return how long nothing may move while something should."""

    @abstractmethod
    def _load(self) -> S:
        """Read the record. Never waits for a lease."""

    @abstractmethod
    def _save(self, stored: S, record: Record) -> S:
        """Replace a record that was read. :raises DeployConflictError: somebody else did meanwhile"""

    @abstractmethod
    def _leased(self, actor: str, what: str) -> AbstractContextManager[None]:
        """Keep everybody else away. :raises DeployConflictError: another holds the lease"""

    @abstractmethod
    def _place(self, record: Record) -> str | None:
        """Return in which of several places the next release is to run."""

    @abstractmethod
    def _prepare(self, record: Record, release: Release, store: ArtifactStore) -> None:
        """Get what the release consists of, and check it, before anything that runs is touched."""

    @abstractmethod
    def _is_restorable(self, release: Release) -> bool:
        """Return whether a release that ran before can be started."""

    @abstractmethod
    def _apply(self, stored: S) -> S:
        """Do what the record's rollout says, under the lease; returns what was stored meanwhile."""

    @abstractmethod
    def _observe(self, stored: S) -> Observation:
        """Look at what was made of the record's rollout."""

    @abstractmethod
    def _converge(self, stored: S) -> S:
        """Bring about what the record says where nothing is on its way in, and clear away all else."""
