"""Targets that start a release beside the old one and then switch to it."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from airflow_cd.targets.record import (
    Deployed,
    Hold,
    Record,
    before_deploying,
    check_generation,
    gone_back,
    newly_deployed,
)

if TYPE_CHECKING:
    from airflow_cd.model.release import Release
    from airflow_cd.stores.base import ArtifactStore

log = logging.getLogger(__name__)


class SideBySideTarget(ABC):
    """
    One service in one environment; see :class:`airflow_cd.targets.base.Target` for what the methods promise.

    Decides what is done; a subclass does it, by the methods at the end.

    :param keep: how many previous releases can be gone back to
    """

    service: str
    environment: str
    keep: int

    def deploy(
        self,
        release: Release,
        store: ArtifactStore,
        *,
        expected: int,
        actor: str,
        approval: str | None = None,
    ) -> Record:
        """Make ``release`` the one that runs."""
        with self._leased(actor, release.version):
            record = self.record()
            if record.current is not None and record.current.release.digest == release.digest:
                return self._converge(record)
            check_generation(record, expected, release, self._where)
            self._prepare(release, store)
            deployed = newly_deployed(record, release, actor, approval)
            return self._replace(record, deployed, before_deploying(record, release))

    def rollback(
        self,
        *,
        bad: str,
        actor: str,
        to: str | None = None,
        reason: str | None = None,
        hold: Hold | None = None,
    ) -> Record:
        """Put the release that ran before ``bad`` back."""
        with self._leased(actor, "a rollback"):
            record = self.record()
            current = record.current
            if current is not None and current.rolled_back_from == bad:
                # Done, perhaps by an attempt that was killed before it cleared away.
                return self._converge(record)
            if current is None or current.release.digest != bad:
                return record
            restored, before = gone_back(
                record,
                lambda one: self._is_restorable(one.release),
                self._where,
                bad=bad,
                to=to,
                actor=actor,
                reason=reason,
            )
            return self._replace(record, restored, before, hold)

    def _replace(
        self, record: Record, deployed: Deployed, before: list[Deployed], hold: Hold | None = None
    ) -> Record:
        new = Record(
            generation=record.generation + 1,
            current=deployed,
            previous=tuple(before[: self.keep]),
            hold=hold,
        )
        self._switch(record, new, deployed.release)
        log.info("Requests go to %s now", deployed.release.version)
        self._finish(new)
        return new

    @property
    def _where(self) -> str:
        return f"{self.service} in {self.environment}"

    @abstractmethod
    def record(self) -> Record:
        """Return what runs here. Never waits for a lease."""

    @abstractmethod
    def _leased(self, actor: str, what: str) -> AbstractContextManager[None]:
        """
        Keep everybody else away.

        :raises DeployConflictError: another holds the lease
        """

    @abstractmethod
    def _prepare(self, release: Release, store: ArtifactStore) -> None:
        """Get what the release consists of, before anything that runs is touched."""

    @abstractmethod
    def _is_restorable(self, release: Release) -> bool:
        """Return whether a release that ran before can be started."""

    @abstractmethod
    def _switch(self, old: Record, new: Record, release: Release) -> None:
        """
        Start the release beside the old one, wait until it is ready, switch record and traffic at once.

        :raises NotReadyError: it did not become ready; it was ended again
        """

    @abstractmethod
    def _converge(self, record: Record) -> Record:
        """Start what should run and does not, and clear away what a killed attempt left."""

    @abstractmethod
    def _finish(self, record: Record) -> None:
        """Drain and end the old release, and clear away what nobody can go back to."""
