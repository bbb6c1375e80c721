"""Deploys a release to an environment after it passed every gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import (
    AccessDeniedError,
    ArtifactCorruptError,
    FieldConflictError,
    ManifestError,
    NotReadyError,
)
from airflow_cd.links.release import ApprovalLink, ServiceLink
from airflow_cd.operators.gates import Attempt, keep_window_answer, pass_gates
from airflow_cd.operators.retry_on_conflict import retry_on_conflict
from airflow_cd.operators.rollouts import FinishedRollout, RolloutFollower
from airflow_cd.releases.history import change_of, changes_alias, emit
from airflow_cd.releases.notifications import notify_of_change
from airflow_cd.releases.run import actor_of, load_ref
from airflow_cd.releases.verification import require_signatures

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import Record


class DeployOperator(BaseOperator):
    """
    Deploys the run's release after it passed every gate.

    First, where the environment demands signatures, a release that is not the one that was signed fails the
    task before the target is asked anything. A release that runs already is left alone. Any other one must
    pass :data:`airflow_cd.operators.gates.GATES`, in their order. The target then compares and sets: of two
    deployments based on the same record one wins, and the other waits in the triggerer until it can decide
    again.

    Where the target takes its time (a canary on Kubernetes), the rollout goes on in the triggerer, and the
    task ends when it does: with what was measured in its XCom, or failed when the release was aborted.

    The XCom is a mapping with ``digest``, ``version``, ``generation``, ``url``, ``changed`` and
    ``verified_by`` (id of the key whose signature let the release in, ``None`` where none is demanded).

    :param service: what to deploy
    :param environment: name of the environment
    :param release_task_id: the task whose XCom is the release
    :param approval_task_id: the approval task; ``None`` where no approval is asked for
    :param stays: checked before anything else: why the release is not deployed, as for a member of a
        release train that did not depart; ``None`` where it is
    """

    template_fields: Sequence[str] = ()
    operator_extra_links: Sequence[BaseOperatorLink] = (ServiceLink(), ApprovalLink())
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        service: Service,
        environment: str,
        release_task_id: str = "package",
        approval_task_id: str | None = None,
        stays: Callable[[Context], str | None] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=[changes_alias(service.name, environment)], **kwargs)
        self.service = service
        self.environment = environment
        self.release_task_id = release_task_id
        self.approval_task_id = approval_task_id
        self.stays = stays
        self.service_url: str | None = None
        if approval_task_id is None:
            # Airflow shows a link that leads nowhere, and stores it, which each takes a request.
            self.operator_extra_links = (ServiceLink(),)

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Deploy the release.

        :raises TaskDeferred: another run deploys here, or a window is closed; decides again later
        :raises AirflowSkipException: superseded
        :raises AirflowFailException: not signed as demanded, changed in the store, not approved, no window
            ever opens, or the release did not become ready
        """
        return retry_on_conflict(partial(self._try, context), self.log)

    def next_turn(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Decide again, from the beginning, after a wait for another run."""
        return self.execute(context)

    def window_opened(self, context: Context, event: Any) -> dict[str, Any]:
        """Decide again, from the beginning, after a wait for a window."""
        return self.execute(context)

    def window_answered(
        self,
        context: Context,
        event: dict[str, Any],
        digest: str,
        manifest: str | None = None,
        until: str | None = None,
        closed: str | None = None,
    ) -> dict[str, Any]:
        """Store the answer to the question of a closed window, and decide again from the beginning."""
        keep_window_answer(
            context,
            self.task_id,
            self.service,
            self.environment,
            event,
            digest,
            manifest,
            until,
            closed,
            self.log,
        )
        return self.execute(context)

    def rolled_out(
        self,
        context: Context,
        event: dict[str, Any],
        token: str,
        asked: str | None = None,
        verified_by: str | None = None,
    ) -> dict[str, Any]:
        """Continue after a wait for the rollout, or after an answer to its question."""
        finished = self._follower.resume(context, event, token, asked, {"verified_by": verified_by})
        return self._over(context, finished, verified_by)

    @property
    def _follower(self) -> RolloutFollower:
        return RolloutFollower(self.service, self.environment, self.log)

    def _try(self, context: Context) -> dict[str, Any]:
        """
        Check every gate and deploy.

        :raises DeployConflictError: another run deploys here
        """
        if self.stays is not None and (why := self.stays(context)):
            self.log.info("%s stays behind: %s", self.service.name, why)
            raise AirflowSkipException(why)
        ref = load_ref(context, self.release_task_id)
        environment = self.service.environment(self.environment)
        release, verified_by = require_signatures(self.service, environment, ref)
        target = self._follower.open_target()
        record = target.record()
        running = record.current.release if record.current else None
        self.log.info(
            "%s runs %s", self.environment, f"{running.version} {running.digest}" if running else "nothing"
        )
        approval = None
        if (running is None or running.digest != release.digest) and not self._is_ours(
            context, release, record
        ):
            approval = pass_gates(self._attempt(context, release, ref.manifest, record))
        done = self._deploy(target, release, record, context, approval, verified_by)
        return self._done(
            context, target, done, verified_by=verified_by, changed=done.generation != record.generation
        )

    def _attempt(self, context: Context, release: Release, manifest: str, record: Record) -> Attempt:
        return Attempt(
            context=context,
            task_id=self.task_id,
            service=self.service,
            environment=self.environment,
            release=release,
            manifest=manifest,
            record=record,
            approval_task_id=self.approval_task_id,
            log=self.log,
        )

    def _is_ours(self, context: Context, release: Release, record: Record) -> bool:
        """Return whether an earlier try of this task let the release in: it is on its way."""
        rollout = record.rollout
        return (
            rollout is not None
            and rollout.candidate.release.digest == release.digest
            and rollout.candidate.actor == actor_of(context)
        )

    def _done(
        self, context: Context, target: Target, record: Record, *, verified_by: str | None, changed: bool
    ) -> dict[str, Any]:
        """Tell of what runs now."""
        assert record.current is not None
        release, measured = record.current.release, record.current.measurements
        self.service_url = target.url()
        change = change_of(context, self.service.name, self.environment, record)
        emit(context, change)
        notify_of_change(context, self.service, change, self.service_url)
        self.log.info("%s runs %s %s", self.environment, release.version, "now" if changed else "already")
        measurements = {"measurements": [one.model_dump(mode="json") for one in measured]} if measured else {}
        return {
            "digest": release.digest,
            "version": release.version,
            "generation": record.generation,
            "url": self.service_url,
            "changed": changed,
            "verified_by": verified_by,
            **measurements,
        }

    def _over(self, context: Context, finished: FinishedRollout, verified_by: str | None) -> dict[str, Any]:
        """
        Return the task's result when the release was promoted.

        :raises AirflowFailException: the rollout was aborted
        :raises AirflowSkipException: another release took its place
        """
        target, record, outcome = finished
        if outcome.state == "promoted":
            return self._done(context, target, record, verified_by=verified_by, changed=True)
        if outcome.state == "aborted":
            runs = record.current.release.version if record.current else "nothing"
            self._follower.notify_of_abort(context, record)
            raise AirflowFailException(f"aborted: {outcome.reason}. {self.environment} runs {runs}.")
        raise AirflowSkipException(f"superseded: {outcome.reason}")

    def _deploy(
        self,
        target: Target,
        release: Release,
        record: Record,
        context: Context,
        approval: str | None,
        verified_by: str | None,
    ) -> Record:
        from airflow_cd.releases.adapters import open_store, store_url
        from airflow_cd.releases.verification import explain_archive
        from airflow_cd.targets.base import ProgressiveTarget

        store = open_store(store_url(self.service))
        decided: Any = {"expected": record.generation, "actor": actor_of(context), "approval": approval}
        try:
            if not isinstance(target, ProgressiveTarget):
                return target.deploy(release, store, **decided)
            over = record.rollout.token if record.rollout else None
            begun = target.begin(release, store, over=over, analyses=self.service.analyses, **decided)
            return self._seen_through(begun, context, target, verified_by)
        except ArtifactCorruptError as error:
            why = "" if release.image else f" {explain_archive(store, release)}"
            raise AirflowFailException(f"{error}{why}") from error
        except (AccessDeniedError, FieldConflictError, ManifestError, NotReadyError) as error:
            raise AirflowFailException(str(error)) from error

    def _seen_through(
        self, begun: Record, context: Context, target: ProgressiveTarget, verified_by: str | None
    ) -> Record:
        """Return the record when the rollout went well while the worker looked; raise when it did not."""
        from airflow_cd.targets.record import outcome_of

        if begun.rollout is None:
            return begun
        token = begun.rollout.token
        record = self._follower.follow(begun, target, {"verified_by": verified_by})
        if (outcome := outcome_of(record, token)).state != "promoted":
            self._over(context, FinishedRollout(target, record, outcome), verified_by)
        return record
