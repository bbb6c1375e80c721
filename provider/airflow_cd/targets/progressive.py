"""What targets have in common whose changes take longer than a task should hold a slot."""

from __future__ import annotations

import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_cd.exceptions import DeployConflictError, NotReadyError, TargetError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.release import ReleaseName
from airflow_cd.model.rollout import Answer, Observation, Phase, Plan, Progress, abort
from airflow_cd.model.subject import Subject
from airflow_cd.targets.base import Aborted, Deployed, Hold, Record, Rollout, outcome_of
from airflow_cd.targets.history import (
    before_deploying,
    check_generation,
    newly_deployed,
    newly_restored,
    position_of,
)

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.release import Release
    from airflow_cd.model.strategy import StrategyChoice

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.25


class Stored(Protocol):
    """A record as it was read, with what a compare-and-set needs to replace it."""

    @property
    def record(self) -> Record:
        """Return the record."""


S = TypeVar("S", bound=Stored)


class SteppedTarget(ABC, Generic[S]):
    """
    One service in one environment; see :class:`airflow_cd.targets.base.ProgressiveTarget` for the promises.

    Decides what is done; a subclass does it, by the methods at the end. What is decided is written to the
    record first, and then done: whoever comes after a killed process does it again, which does no harm.

    :param keep: how many previous releases can be gone back to
    """

    service: str
    environment: str
    keep: int

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
            if rollout is not None and rollout.kind == "rollback":
                raise DeployConflictError(
                    f"{self._where} is being rolled back to {rollout.candidate.release.version} "
                    f"by {rollout.candidate.actor}"
                )
            if record.current is not None and record.current.release.digest == release.digest:
                return self._stay(stored, actor)
            check_generation(record, expected, release, self._where)
            self._check_over(record, over, release)
            deployed = newly_deployed(record, release, actor, approval)
            deployed = deployed.model_copy(update={"place": self._place(record), "strategy": self._strategy})
            self._prepare(release, store)
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
            position = position_of(record, to, self._is_restorable, self._where)
            restored = newly_restored(record, record.previous[position], bad=bad, actor=actor, reason=reason)
            before = list(record.previous[position + 1 :])
            return self._start(stored, restored, before, kind="rollback", hold=hold)

    def advance(
        self, token: str, *, measurements: Sequence[Measurement] = (), answer: Answer | None = None
    ) -> Record:
        """Look, decide and act once."""
        stored = self._load()
        rollout = stored.record.rollout
        if rollout is None or rollout.token != token:
            return stored.record
        if not rollout.progress.applied:
            stored = self._told(token)
            rollout = stored.record.rollout
            if rollout is None or rollout.token != token:
                return stored.record
        stored = self._continue(stored)
        rollout = stored.record.rollout
        if rollout is None or rollout.token != token:
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

    def _names(self, rollout: Rollout) -> dict[str, str]:
        """Return what else of a :class:`~airflow_cd.model.subject.Subject` this kind of target has."""
        return {}

    def _instances(self, stored: S) -> int | None:
        """Return how many instances of what runs there are, where that is not for the release to say."""
        return None

    def _continue(self, stored: S) -> S:
        """Do what comes next within a phase, if anything does; returns what is stored then."""
        return stored

    def _gone_on(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        """Write a decision down and act on it. What is no decision needs no lease: it changes nothing."""
        if progress.phase is rollout.progress.phase and progress.applied:
            return self._save(stored, _with(stored.record, progress))
        log.debug("%s: %s", rollout.candidate.release.version, rollout.plan.described(progress))
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            if progress.phase is Phase.PROMOTED:
                return self._promoted(stored, rollout, progress)
            if progress.phase is Phase.ABORTED:
                return self._aborted(stored, rollout, progress)
            return self._act(self._save(stored, _with(stored.record, progress)))

    def _told(self, token: str) -> S:
        """Do again what was written down and, as far as is known, not done."""
        stored = self._load()
        rollout = stored.record.rollout
        assert rollout is not None
        with self._leased(rollout.candidate.actor, rollout.candidate.release.version):
            stored = self._load()
            rollout = stored.record.rollout
            if rollout is None or rollout.token != token or rollout.progress.applied:
                return stored
            return self._act(stored)

    def _act(self, stored: S) -> S:
        rollout = stored.record.rollout
        assert rollout is not None
        if rollout.progress.applied:
            return stored
        stored = self._apply(stored)
        return self._save(stored, _with(stored.record, rollout.progress.model_copy(update={"applied": True})))

    def _start(self, stored: S, deployed: Deployed, before: list[Deployed], **how: Any) -> Record:
        token, now = uuid.uuid4().hex, datetime.now(timezone.utc)
        rollout = Rollout(
            token=token,
            candidate=deployed.model_copy(update={"token": token}),
            before=tuple(before[: self.keep]),
            progress=Plan().begin(now),
            deadline=self._deadline,
            instances=self._instances(stored),
            # Where nothing runs there is nothing to compare with, and going back must not wait.
            fast=stored.record.current is None or how["kind"] == "rollback",
            **how,
        )
        rollout = rollout.model_copy(update={"progress": rollout.plan.begin(now)})
        log.info("%s: %s", deployed.release.version, rollout.plan.described(rollout.progress))
        stored = self._save(stored, stored.record.model_copy(update={"rollout": rollout}))
        return self._act(stored).record

    def _abort(self, stored: S, reason: str) -> Record:
        rollout = stored.record.rollout
        assert rollout is not None
        progress = abort(rollout.progress, reason, datetime.now(timezone.utc))
        if progress == rollout.progress:
            return stored.record
        log.warning("%s: aborting: %s", rollout.candidate.release.version, reason)
        return self._act(self._save(stored, _with(stored.record, progress))).record

    def _promoted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        current = rollout.candidate.model_copy(
            update={"deployed_at": datetime.now(timezone.utc), "measurements": progress.measurements}
        )
        record = Record(
            generation=stored.record.generation + 1,
            current=current,
            previous=rollout.before,
            hold=rollout.hold,
        )
        log.info("Requests go to %s now", current.release.version)
        return self._converge(self._save(stored, record))

    def _aborted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        aborted = Aborted(
            token=rollout.token,
            release=ReleaseName.of(rollout.candidate.release),
            actor=rollout.candidate.actor,
            at=datetime.now(timezone.utc),
            reason=progress.reason or "no reason given",
            measurements=progress.measurements,
        )
        record = stored.record.model_copy(update={"rollout": None, "aborted": aborted})
        return self._converge(self._save(stored, record))

    def _stay(self, stored: S, actor: str) -> Record:
        """Keep what runs: whatever else is on its way in gives way to it."""
        if stored.record.rollout is None:
            return self._converge(stored).record
        current = stored.record.current
        assert current is not None
        return self._abort(stored, f"{actor} deployed {current.release.version} again, which ran before")

    def _check_over(self, record: Record, over: str | None, release: Release) -> None:
        rollout = record.rollout
        if (rollout.token if rollout else None) == over:
            return
        if rollout is None:
            raise DeployConflictError(
                f"{release.version} was to replace a rollout in {self._where} that is over by now"
            )
        raise DeployConflictError(
            f"{self._where} is being deployed by somebody else: {rollout.candidate.actor} brings "
            f"{rollout.candidate.release.version}"
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
        while (outcome := outcome_of(record, rollout.token)).state == "under way":
            time.sleep(_POLL_SECONDS)
            record = self.advance(rollout.token)
        if outcome.state == "promoted":
            return record
        if outcome.state == "replaced":
            raise DeployConflictError(f"{rollout.candidate.release.version}: {outcome.reason}")
        raise NotReadyError(
            f"{self._where}: {rollout.candidate.release.version} did not become ready: {outcome.reason}. "
            "What ran before still serves."
        )

    @property
    def _where(self) -> str:
        return f"{self.service} in {self.environment}"

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
    def _prepare(self, release: Release, store: ArtifactStore) -> None:
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


def _with(record: Record, progress: Progress) -> Record:
    assert record.rollout is not None
    return record.model_copy(update={"rollout": record.rollout.model_copy(update={"progress": progress})})
