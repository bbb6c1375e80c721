"""Drives rollouts whose steps take longer than a task should occupy a slot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from airflow_cd.exceptions import DeployConflictError, NotReadyError, TargetError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.rollout import Observation, Phase, Progress, RolloutAnswer
from airflow_cd.model.subject import Subject
from airflow_cd.targets.record import (
    Deployed,
    Hold,
    Record,
    Rollout,
    RolloutKind,
    aborted,
    before_deploying,
    begin_rollout,
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


class RolloutBackend(Protocol[S]):
    """
    How one kind of target carries out rollouts of one service in one environment.

    A call that the end of its process cut short is repeated by the next process, and must do no harm then.

    :param keep: how many previous releases can be rolled back to
    """

    service: str
    environment: str
    keep: int

    @property
    def strategy(self) -> StrategyChoice | None:
        """Return how the environment changes from one release to the next."""

    @property
    def deadline(self) -> timedelta:
        """Return how long a rollout that should progress may stand still before it is aborted."""

    def load(self) -> S:
        """Read the record, without a lease."""

    def save(self, stored: S, record: Record) -> S:
        """
        Replace a record that was read.

        :raises DeployConflictError: another process replaced it since
        """

    def leased(self, actor: str, what: str) -> AbstractContextManager[None]:
        """
        Hold the lease of the environment.

        :raises DeployConflictError: another process holds it
        """

    def track(self, record: Record) -> str | None:
        """Return the track for the next release, where releases run side by side on tracks."""

    def prepare(self, record: Record, release: Release, store: ArtifactStore) -> str | None:
        """
        Fetch and check the content of a release before anything that runs is changed.

        :return: digest of what is kept of it; see :class:`~airflow_cd.targets.record.Deployed`
        """

    def is_restorable(self, deployed: Deployed) -> bool:
        """Return whether a release that ran before can be started again."""

    def apply(self, stored: S) -> S:
        """Apply the phase of the record's rollout, under the lease; return the record as stored then."""

    def proceed(self, stored: S) -> S:
        """Apply the next wave within a phase, if one is due; return the record as stored then."""

    def observe(self, stored: S) -> Observation:
        """Read how far the phase of the record's rollout is."""

    def apply_steady_state(self, stored: S) -> S:
        """Apply what the record says while no rollout is in progress, and delete everything else."""

    def instances(self, stored: S) -> int | None:
        """Return the number of instances that run, where an autoscaler or a person sets it; else ``None``."""

    def names(self, rollout: Rollout) -> dict[str, str]:
        """Return further fields of :class:`~airflow_cd.model.subject.Subject` of this kind of target."""


POLL_SECONDS = 0.15
# Longer than the lease of a process that died.
_LONGEST_CONFLICT = 60.0


def drive_to_completion(advance: Callable[[str], Record], record: Record, token: str) -> Iterator[Record]:
    """
    Yield the record before, and after each look, until the rollout is over; then it is the last one.

    Another process that drives the same rollout, such as a triggerer, is no error: the next read tells more.

    :param advance: the method of a :class:`~airflow_cd.targets.base.ProgressiveTarget`
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
            record, acted = advance(token), time.monotonic()
        except DeployConflictError as error:
            if time.monotonic() - acted > _LONGEST_CONFLICT:
                raise
            log.debug("Lease conflict, retrying: %s", error)
        yield record


class RolloutController(Generic[S]):
    """
    One service in one environment; see :class:`airflow_cd.targets.base.ProgressiveTarget` for the promises.

    Decides what happens next; its backend carries it out. Each decision is saved in the record first and then
    carried out: after a killed process the next one does it again.

    :param backend: of one kind of target
    """

    def __init__(self, backend: RolloutBackend[S]) -> None:
        self._backend = backend
        self._where = f"{backend.service} in {backend.environment}"

    def record(self) -> Record:
        """Return what runs here, and what is on its way in."""
        return self._backend.load().record

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
        return self._complete(record)

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
        return self._complete(self.begin_rollback(bad=bad, actor=actor, to=to, reason=reason, hold=hold))

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
        with self._backend.leased(actor, release.version):
            stored = self._backend.load()
            record = stored.record
            rollout = record.rollout
            if rollout is not None and rollout.candidate.release.digest == release.digest:
                return record
            refuse_during_rollback(record, self._where)
            if record.current is not None and record.current.release.digest == release.digest:
                return self._keep_current(self._kept_again(stored, release, store), actor)
            check_generation(record, expected, release, self._where)
            check_over(record, over, release, self._where)
            deployed = newly_deployed(record, release, actor, approval)
            deployed = deployed.model_copy(
                update={
                    "place": self._backend.track(record),
                    "strategy": self._backend.strategy,
                    "content": self._backend.prepare(record, release, store),
                }
            )
            before = before_deploying(record, release)
            return self._start(stored, deployed, before, kind="deploy", analyses=analyses)

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
        with self._backend.leased(actor, "a rollback"):
            stored = self._backend.load()
            record = stored.record
            current, rollout = record.current, record.rollout
            if rollout is not None and rollout.candidate.rolled_back_from == bad:
                return record
            if rollout is not None and rollout.candidate.release.digest == bad:
                if hold is not None:
                    stored = self._backend.save(stored, record.model_copy(update={"hold": hold}))
                return self._abort(stored, reason or f"rolled back by {actor}")
            if current is not None and current.rolled_back_from == bad and rollout is None:
                return self._backend.apply_steady_state(stored).record
            if current is None or current.release.digest != bad:
                return record
            restored, before = gone_back(
                record, self._backend.is_restorable, self._where, bad=bad, to=to, actor=actor, reason=reason
            )
            return self._start(stored, restored, before, kind="rollback", hold=hold)

    def advance(
        self, token: str, *, measurements: Sequence[Measurement] = (), answer: RolloutAnswer | None = None
    ) -> Record:
        """Look, decide and act once."""
        stored = self._backend.load()
        for catch_up in (self._repeat_unfinished, self._backend.proceed):
            if rollout_of(stored.record, token) is None:
                return stored.record
            stored = catch_up(stored)
        rollout = rollout_of(stored.record, token)
        if rollout is None:
            return stored.record
        seen = self._backend.observe(stored)
        now = datetime.now(timezone.utc)
        progress = rollout.plan.advance(rollout.progress, seen, now, measurements, answer)
        if progress == rollout.progress:
            return stored.record
        return self._carry_on(stored, rollout, progress).record

    def abort(self, *, actor: str, reason: str, token: str | None = None) -> Record:
        """Begin to give everything back to what ran before."""
        with self._backend.leased(actor, "an abort"):
            stored = self._backend.load()
            rollout = stored.record.rollout
            if rollout is None or rollout.kind == "rollback" or (token and rollout.token != token):
                return stored.record
            return self._abort(stored, reason)

    def converge(self) -> Record:
        """Bring about what the record says."""
        with self._backend.leased("convergence", "what runs"):
            stored = self._backend.load()
            if stored.record.rollout is not None or stored.record.current is None:
                return stored.record
            return self._backend.apply_steady_state(stored).record

    def subject(self, rollout: Rollout) -> Subject:
        """Return what analyses of this rollout are about."""
        release = rollout.candidate.release
        return Subject(
            service=self._backend.service,
            environment=self._backend.environment,
            version=release.version,
            revision=release.revision.sha,
            digest=release.digest,
            **self._backend.names(rollout),
        )

    def _complete(self, record: Record) -> Record:
        """
        Wait until what was begun is over.

        :raises NotReadyError: it was aborted
        """
        rollout = record.rollout
        if rollout is None:
            return record
        if any(step.weight is None for step in rollout.plan.steps):
            raise TargetError(
                f"the strategy of {self._where} pauses or measures, which a DAG's deploy task goes through"
            )
        for latest in drive_to_completion(self.advance, record, rollout.token):
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

    def _carry_on(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        """Write a decision down and act on it. What is no decision needs no lease: it changes nothing."""
        if progress.phase is rollout.progress.phase and progress.applied:
            return self._backend.save(stored, with_progress(stored.record, progress))
        log.debug("%s: %s", rollout.candidate.release.version, rollout.plan.described(progress))
        with self._backend.leased(rollout.candidate.actor, rollout.candidate.release.version):
            if progress.phase is Phase.PROMOTED:
                return self._promoted(stored, rollout, progress)
            if progress.phase is Phase.ABORTED:
                return self._aborted(stored, rollout, progress)
            return self._act(self._backend.save(stored, with_progress(stored.record, progress)))

    def _repeat_unfinished(self, stored: S) -> S:
        """Do again what was written down and, as far as is known, not done."""
        rollout = stored.record.rollout
        assert rollout is not None
        if rollout.progress.applied:
            return stored
        with self._backend.leased(rollout.candidate.actor, rollout.candidate.release.version):
            stored = self._backend.load()
            return stored if rollout_of(stored.record, rollout.token) is None else self._act(stored)

    def _act(self, stored: S) -> S:
        rollout = stored.record.rollout
        assert rollout is not None
        if rollout.progress.applied:
            return stored
        stored = self._backend.apply(stored)
        return self._backend.save(
            stored, with_progress(stored.record, rollout.progress.model_copy(update={"applied": True}))
        )

    def _start(
        self,
        stored: S,
        deployed: Deployed,
        before: list[Deployed],
        *,
        kind: RolloutKind,
        analyses: Mapping[str, Analysis] | None = None,
        hold: Hold | None = None,
    ) -> Record:
        rollout = begin_rollout(
            stored.record,
            deployed,
            before[: self._backend.keep],
            deadline=self._backend.deadline,
            instances=self._backend.instances(stored),
            kind=kind,
            analyses=analyses or {},
            hold=hold,
        )
        log.info("%s: %s", deployed.release.version, rollout.plan.described(rollout.progress))
        stored = self._backend.save(stored, stored.record.model_copy(update={"rollout": rollout}))
        return self._act(stored).record

    def _abort(self, stored: S, reason: str) -> Record:
        rollout = stored.record.rollout
        assert rollout is not None
        progress = rollout.progress.aborting(reason, datetime.now(timezone.utc))
        if progress == rollout.progress:
            return stored.record
        log.warning("%s: aborting: %s", rollout.candidate.release.version, reason)
        return self._act(self._backend.save(stored, with_progress(stored.record, progress))).record

    def _promoted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        record = promoted(stored.record, rollout, progress)
        log.info("Requests go to %s now", rollout.candidate.release.version)
        return self._backend.apply_steady_state(self._backend.save(stored, record))

    def _aborted(self, stored: S, rollout: Rollout, progress: Progress) -> S:
        record = aborted(stored.record, rollout, progress)
        return self._backend.apply_steady_state(self._backend.save(stored, record))

    def _kept_again(self, stored: S, release: Release, store: ArtifactStore) -> S:
        """Fetch what the running release consists of once more, where that was lost or changed."""
        record, current = stored.record, stored.record.current
        assert current is not None
        if self._backend.is_restorable(current):
            return stored
        content = self._backend.prepare(record, release, store)
        current = current.model_copy(update={"content": content})
        return self._backend.save(stored, record.model_copy(update={"current": current}))

    def _keep_current(self, stored: S, actor: str) -> Record:
        """Keep what runs: whatever else is on its way in gives way to it."""
        if stored.record.rollout is None:
            return self._backend.apply_steady_state(stored).record
        current = stored.record.current
        assert current is not None
        return self._abort(stored, f"{actor} deployed {current.release.version} again, which ran before")
