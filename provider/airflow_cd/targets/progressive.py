"""What targets have in common whose changes take longer than a task should hold a slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_cd.exceptions import DeployConflictError, NotReadyError, TargetError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.progress import RolloutAnswer
from airflow_cd.model.subject import Subject
from airflow_cd.targets.carrying_out import RolloutWriter
from airflow_cd.targets.driven import drive_to_completion
from airflow_cd.targets.history import before_deploying, check_generation, gone_back, newly_deployed
from airflow_cd.targets.record import Hold, Record, Rollout, outcome_of
from airflow_cd.targets.rollouts import check_over, refuse_during_rollback, rollout_of
from airflow_cd.targets.stepping import S

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.release import Release


class RolloutController(RolloutWriter[S]):
    """
    One service in one environment; see :class:`airflow_cd.targets.base.ProgressiveTarget` for the promises.

    Decides what is done; a subclass does it, by the methods of
    :class:`~airflow_cd.targets.stepping.RolloutBackend`.
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
