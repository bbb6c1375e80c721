"""Writes down what was decided about a rollout, and then does it."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any

from airflow_cd.model.progress import Phase, Progress
from airflow_cd.targets.record import Deployed, Record, Rollout
from airflow_cd.targets.rollouts import aborted, begun, promoted, rollout_of, with_progress
from airflow_cd.targets.stepping import RolloutBackend, S

log = logging.getLogger(__name__)


class RolloutWriter(RolloutBackend[S]):
    """
    What follows from a decision.

    It is written to the record first, and then done: whoever comes after a killed process does it again,
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
