"""Drives a rollout in the triggerer, step by step, for as long as it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_cd.exceptions import (
    AccessDeniedError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
)
from airflow_cd.model.environment import Environment
from airflow_cd.model.rollout import Phase
from airflow_cd.processes.blocking import in_threads_of
from airflow_cd.processes.deadline import within
from airflow_cd.triggers.defer_delay import defer_delay_seconds
from airflow_cd.triggers.git_heads import backoff

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_cd.model.analysis import Measurement
    from airflow_cd.model.rollout import Progress
    from airflow_cd.model.subject import Subject
    from airflow_cd.targets.base import Changes, ProgressiveTarget
    from airflow_cd.targets.record import Record, Rollout

# What will not get better by trying again.
_FOR_GOOD = (AccessDeniedError, FieldConflictError, ManifestError)
# A task in one of these states was marked by a person; in others it goes on, as after an answer.
_ENDED = ("failed", "success", "skipped", "upstream_failed", "removed")
_RETRY_SECONDS = 1.0
_ABORT_SECONDS = 25.0


class RolloutTrigger(BaseTrigger):
    """
    Goes on with a rollout until it is over, or asks a person something, and fires once.

    The event has ``state`` (``promoted``, ``aborted``, ``replaced``, ``asking`` or ``stuck``) and ``reason``.
    What is decided is decided by the rollout's own plan and kept in the target's record: a triggerer that is
    restarted goes on where the other one ended. When the task is marked, the rollout is aborted.

    :param service: name of the service
    :param environment: the environment's definition as JSON
    :param token: of the rollout
    :param started_at: when the task deferred, in seconds since the epoch
    :param settle: seconds from then until the event is fired at the earliest, see
        :func:`~airflow_cd.triggers.defer_delay.defer_delay_seconds`
    :param asked: which question (see :func:`question_of`) was put already
    """

    def __init__(
        self,
        *,
        service: str,
        environment: dict[str, Any],
        token: str,
        started_at: float,
        settle: float = 0.0,
        asked: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.service, self.environment, self.token = service, environment, token
        self.started_at, self.settle, self.asked = started_at, settle, asked

    @classmethod
    def of(
        cls, service: str, environment: Environment, token: str, asked: str | None = None
    ) -> RolloutTrigger:
        """Return a trigger for a task that defers now."""
        return cls(
            service=service,
            environment=environment.model_dump(mode="json"),
            token=token,
            started_at=time.time(),
            settle=defer_delay_seconds(),
            asked=asked,
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, from which the triggerer makes this trigger."""
        names = ("service", "environment", "token", "started_at", "settle", "asked")
        return f"{__name__}.RolloutTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Drive the rollout until there is something to tell."""
        target = await self._open()
        async with target.watching() as changes:
            event = await self._drive(target, self.asked).until_told(changes)
        # Measured against the clock, but never longer than meant, should that have been set back.
        await asyncio.sleep(min(max(self.started_at + self.settle - time.time(), 0.0), self.settle))
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """Give everything back when a person marked the task; Airflow calls this for an answer, too."""
        state = await self._task_state()
        if state not in _ENDED:
            return
        target = await self._open()
        reason = f"its task was marked as {state}"
        self.log.warning("Aborting the rollout: %s", reason)
        drive = self._drive(target, None)
        await drive.acted(partial(target.abort, actor="a person", reason=reason, token=self.token))
        async with target.watching() as changes:
            await within(_ABORT_SECONDS, drive.until_told(changes))

    def _drive(self, target: ProgressiveTarget, asked: str | None) -> _Drive:
        remote = Environment.model_validate(self.environment).target.settings.remote
        return _Drive(target, remote, self.token, asked, self.log)

    async def _open(self) -> ProgressiveTarget:
        from airflow_cd.releases.adapters import open_environment
        from airflow_cd.targets.base import ProgressiveTarget

        environment = Environment.model_validate(self.environment)
        target = await in_threads_of(
            environment.target.settings.remote, open_environment, self.service, environment
        )
        assert isinstance(target, ProgressiveTarget), "only these have rollouts"
        return target

    async def _task_state(self) -> str | None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
        from asgiref.sync import sync_to_async

        from airflow_cd.releases.run import name_of

        ti: Any = self.task_instance
        states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
        return name_of(states.get(ti.run_id, {}).get(ti.task_id))


def question_of(progress: Progress) -> str:
    """Return the name of what a rollout asks now; it never asks the same twice."""
    return f"{progress.step}/{progress.since.isoformat()}"


class _Drive:
    """One rollout, driven until there is something to tell."""

    def __init__(
        self,
        target: ProgressiveTarget,
        remote: tuple[str, ...],
        token: str,
        asked: str | None,
        log: Logger,
    ) -> None:
        self._target, self._remote, self._token, self._asked = target, remote, token, asked
        self._log, self._failures, self._shown = log, 0, ""
        self._subject: Subject | None = None

    async def until_told(self, changes: Changes) -> dict[str, Any]:
        """Go on until the rollout is over, or asks; return the event."""
        from airflow_cd.targets.record import outcome_of

        measured: Sequence[Measurement] = ()
        while True:
            record = await self._advanced(measured)
            if isinstance(record, str):
                return {"state": "stuck", "reason": record}
            if record is None:
                await changes.wait(backoff(_RETRY_SECONDS, self._failures))
                continue
            outcome = outcome_of(record, self._token)
            rollout = record.rollout
            if outcome.state != "under way" or rollout is None:
                return {"state": outcome.state, "reason": outcome.reason}
            self._show(rollout)
            progress = rollout.progress
            if progress.phase is Phase.AWAITING_DECISION and question_of(progress) != self._asked:
                return {"state": "asking", "reason": progress.reason, "question": question_of(progress)}
            measured = await self._measured(rollout)
            if not measured and progress.applied:
                await changes.wait(rollout.plan.seconds_to_next(progress, datetime.now(timezone.utc)))

    async def _advanced(self, measured: Sequence[Measurement]) -> Record | str | None:
        """Return the record, ``None`` when it must be tried again, or why that would not help."""
        advance = partial(self._target.advance, self._token, measurements=measured)
        for _ in range(3):
            try:
                return await self.acted(advance)
            except _FOR_GOOD as error:
                reason = str(error)
            except DeployConflictError as error:
                self._log.debug("Once more: %s", error)
                continue
            except Exception as error:  # a cluster that is gone for a while costs nothing but that while
                self._failures += 1
                self._log.warning("Cannot go on, trying again: %s", error)
                return None
            self._log.error("%s", reason)
            abort = partial(self._target.abort, actor="airflow-cd", reason=reason, token=self._token)
            try:
                await self.acted(abort)
            except _FOR_GOOD as error:
                return f"{reason}; and it cannot be aborted: {error}"
            except DeployConflictError:
                continue
        return None

    async def acted(self, act: Callable[[], Record]) -> Record:
        """Let the target do something, off the event loop."""
        record = await in_threads_of(self._remote, act)
        self._failures = 0
        return record

    async def _measured(self, rollout: Rollout) -> list[Measurement]:
        """Take the measurements that are due."""
        due = rollout.plan.due(rollout.progress, datetime.now(timezone.utc))
        if not due:
            return []
        from airflow_cd.hooks.metrics import take_measurement

        if self._subject is None:
            self._subject = await in_threads_of(self._remote, self._target.subject, rollout)
        subject, step = self._subject, rollout.progress.step
        takes = [
            asyncio.create_task(take_measurement(name, rollout.plan.analyses[name], step, subject))
            for name in due
        ]
        try:
            # Not gather(): on Python 3.10 it loses why it was cancelled, by which Airflow knows of a mark.
            await asyncio.wait(takes)
        finally:
            for take in takes:
                take.cancel()
        found = [take.result() for take in takes]
        for one in found:
            self._log.info("Analysis %s: %s, %s", one.analysis, one.outcome, one.detail)
        return found

    def _show(self, rollout: Rollout) -> None:
        shown = rollout.plan.described(rollout.progress)
        if shown != self._shown:
            self._log.info("%s", shown)
            self._shown = shown
