"""Drives rollouts whose steps take longer than a task should occupy a slot."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_cd.exceptions import DeployConflictError, NotReadyError, TargetError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.rollout import Observation, Phase, Progress, RolloutAnswer
from airflow_cd.model.subject import Subject
from airflow_cd.targets.record import (
    Deployed,
    Hold,
    Record,
    Rollout,
    aborted,
    before_deploying,
    begun,
    check_generation,
    check_over,
    gone_back,
    newly_deployed,
    outcome_of,
    promoted,
    refuse_during_rollback,
    rollout_of,
    with_progress,
)

if TYPE_CHECKING:
    from airflow_cd.model.release import Release
    from airflow_cd.model.strategy import StrategyChoice
    from airflow_cd.stores.base import ArtifactStore

log = logging.getLogger(__name__)


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
        """Replace a record that was read. :raises DeployConflictError: another process did meanwhile"""

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


class RolloutWriter(RolloutBackend[S]):
    """
    What follows from a decision.

    It is written to the record first, and then done: the next process after a killed one does it again,
    which does no harm.
    """

    def _gone_on(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        """Write a decision down and act on it. What is no decision needs no lease: it changes nothing."""
        if progress.phase is rollout.progress.phase and progress.applied:
            return self._save(stored, with_progress(stored.record, progress))
        log.debug("%s: %s", rollout.candidate.release.version, rollout.plan.described(progress))
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            if progress.phase is Phase.PROMOTED:
                return self._promoted(stored, rollout, progress)
            if progress.phase is Phase.ABORTED:
                return self._aborted(stored, rollout, progress)
            return self._act(self._save(stored, with_progress(stored.record, progress)))

    def _told(self, stored: S) -> S:
        """Do again what was written down and, as far as is known, not done."""
        rollout = stored.record.rollout
        assert rollout is not None
        if rollout.progress.applied:
            return stored
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            stored = self._load()
            return stored if rollout_of(stored.record, rollout.token) is None else self._act(stored)

    def _act(self, stored: S) -> S:
        rollout = stored.record.rollout
        assert rollout is not None
        if rollout.progress.applied:
            return stored
        stored = self._apply(stored)
        return self._save(
            stored, with_progress(stored.record, rollout.progress.model_copy(update={"applied": True}))
        )

    def _start(self, stored: S, deployed: Deployed, before: list[Deployed], **how: Any) -> Record:
        rollout = begun(
            stored.record,
            deployed,
            before[: self.keep],
            deadline=self._deadline,
            instances=self._instances(stored),
            **how,
        )
        log.info("%s: %s", deployed.release.version, rollout.plan.described(rollout.progress))
        stored = self._save(stored, stored.record.model_copy(update={"rollout": rollout}))
        return self._act(stored).record

    def _abort(self, stored: S, reason: str) -> Record:
        rollout = stored.record.rollout
        assert rollout is not None
        progress = rollout.progress.aborting(reason, datetime.now(timezone.utc))
        if progress == rollout.progress:
            return stored.record
        log.warning("%s: aborting: %s", rollout.candidate.release.version, reason)
        return self._act(self._save(stored, with_progress(stored.record, progress))).record

    def _promoted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        record = promoted(stored.record, rollout, progress)
        log.info("Requests go to %s now", rollout.candidate.release.version)
        return self._converge(self._save(stored, record))

    def _aborted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        record = aborted(stored.record, rollout, progress)
        return self._converge(self._save(stored, record))

    def _stay(self, stored: S, actor: str) -> Record:
        """Keep what runs: whatever else is on its way in gives way to it."""
        if stored.record.rollout is None:
            return self._converge(stored).record
        current = stored.record.current
        assert current is not None
        return self._abort(stored, f"{actor} deployed {current.release.version} again, which ran before")


POLL_SECONDS = 0.15
# Longer than the lease of a process that died.
_LONGEST_CONFLICT = 60.0


class Advancing(Protocol):
    """The part of a :class:`~airflow_cd.targets.base.ProgressiveTarget` that is needed here."""

    def advance(self, token: str) -> Record:
        """Look, decide and act once."""


def drive_to_completion(target: Advancing, record: Record, token: str) -> Iterator[Record]:
    """
    Yield the record before, and after each look, until the rollout is over; then it is the last one.

    Another process that drives the same rollout, such as a triggerer, is no error: the next read tells more.

    :param record: as it is now
    :param token: which rollout
    :raises DeployConflictError: another process won every attempt for a minute
    """
    before, acted = record, time.monotonic()
    yield record
    while rollout_of(record, token) is not None:
        if record == before:  # else there may be more to do at once
            time.sleep(POLL_SECONDS)
        before = record
        try:
            record, acted = target.advance(token), time.monotonic()
        except DeployConflictError as error:
            if time.monotonic() - acted > _LONGEST_CONFLICT:
                raise
            log.debug("Once more: %s", error)
        yield record


class RolloutController(RolloutWriter[S]):
    """
    One service in one environment; see :class:`airflow_cd.targets.base.ProgressiveTarget` for the promises.

    Decides what is done; a subclass does it, by the methods of
    :class:`~airflow_cd.targets.rollout_controller.RolloutBackend`.
    """

    def record(self) -> Record:
        """Return what runs here, and what is on its way in."""
        return self._load().record

    def deploy(
        self,
        release: Release,
        store: ArtifactStore,
        *,
        expected: int,
        actor: str,
        approval: str | None = None,
    ) -> Record:
        """Make ``release`` the one that runs, and wait for that."""
        record = self.begin(release, store, expected=expected, over=None, actor=actor, approval=approval)
        return self._see_through(record)

    def rollback(
        self,
        *,
        bad: str,
        actor: str,
        to: str | None = None,
        reason: str | None = None,
        hold: Hold | None = None,
    ) -> Record:
        """Put the release that ran before ``bad`` back, and wait for that."""
        return self._see_through(self.begin_rollback(bad=bad, actor=actor, to=to, reason=reason, hold=hold))

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
        """Begin to make ``release`` the one that runs."""
        with self._leased(actor, release.version):
            stored = self._load()
            record = stored.record
            rollout = record.rollout
            if rollout is not None and rollout.candidate.release.digest == release.digest:
                return record
            refuse_during_rollback(record, self._where)
            if record.current is not None and record.current.release.digest == release.digest:
                return self._stay(stored, actor)
            check_generation(record, expected, release, self._where)
            check_over(record, over, release, self._where)
            deployed = newly_deployed(record, release, actor, approval)
            deployed = deployed.model_copy(update={"place": self._place(record), "strategy": self._strategy})
            self._prepare(record, release, store)
            before = before_deploying(record, release)
            return self._start(stored, deployed, before, kind="deploy", analyses=dict(analyses or {}))

    def begin_rollback(
        self,
        *,
        bad: str,
        actor: str,
        to: str | None = None,
        reason: str | None = None,
        hold: Hold | None = None,
    ) -> Record:
        """Begin to put the release that ran before ``bad`` back."""
        with self._leased(actor, "a rollback"):
            stored = self._load()
            record = stored.record
            current, rollout = record.current, record.rollout
            if rollout is not None and rollout.candidate.rolled_back_from == bad:
                return record
            if rollout is not None and rollout.candidate.release.digest == bad:
                if hold is not None:
                    stored = self._save(stored, record.model_copy(update={"hold": hold}))
                return self._abort(stored, reason or f"rolled back by {actor}")
            if current is not None and current.rolled_back_from == bad and rollout is None:
                return self._converge(stored).record
            if current is None or current.release.digest != bad:
                return record
            restored, before = gone_back(
                record, self._is_restorable, self._where, bad=bad, to=to, actor=actor, reason=reason
            )
            return self._start(stored, restored, before, kind="rollback", hold=hold)

    def advance(
        self, token: str, *, measurements: Sequence[Measurement] = (), answer: RolloutAnswer | None = None
    ) -> Record:
        """Look, decide and act once."""
        stored = self._load()
        for catch_up in (self._told, self._continue):
            if rollout_of(stored.record, token) is None:
                return stored.record
            stored = catch_up(stored)
        rollout = rollout_of(stored.record, token)
        if rollout is None:
            return stored.record
        seen = self._observe(stored)
        now = datetime.now(timezone.utc)
        progress = rollout.plan.advance(rollout.progress, seen, now, measurements, answer)
        if progress == rollout.progress:
            return stored.record
        return self._gone_on(stored, rollout, progress).record

    def abort(self, *, actor: str, reason: str, token: str | None = None) -> Record:
        """Begin to give everything back to what ran before."""
        with self._leased(actor, "an abort"):
            stored = self._load()
            rollout = stored.record.rollout
            if rollout is None or rollout.kind == "rollback" or (token and rollout.token != token):
                return stored.record
            return self._abort(stored, reason)

    def converge(self) -> Record:
        """Bring about what the record says."""
        with self._leased("convergence", "what runs"):
            stored = self._load()
            if stored.record.rollout is not None or stored.record.current is None:
                return stored.record
            return self._converge(stored).record

    def subject(self, rollout: Rollout) -> Subject:
        """Return what analyses of this rollout are about."""
        release = rollout.candidate.release
        return Subject(
            service=self.service,
            environment=self.environment,
            version=release.version,
            revision=release.revision.sha,
            digest=release.digest,
            **self._names(rollout),
        )

    def _see_through(self, record: Record) -> Record:
        """Wait until what was begun is over. :raises NotReadyError: it was aborted"""
        rollout = record.rollout
        if rollout is None:
            return record
        if any(step.weight is None for step in rollout.plan.steps):
            raise TargetError(
                f"the strategy of {self._where} pauses or measures, which a DAG's deploy task goes through"
            )
        for latest in drive_to_completion(self, record, rollout.token):
            record = latest
        outcome = outcome_of(record, rollout.token)
        if outcome.state == "promoted":
            return record
        if outcome.state == "replaced":
            raise DeployConflictError(f"{rollout.candidate.release.version}: {outcome.reason}")
        raise NotReadyError(
            f"{self._where}: {rollout.candidate.release.version} did not become ready: {outcome.reason}. "
            "What ran before still serves."
        )
