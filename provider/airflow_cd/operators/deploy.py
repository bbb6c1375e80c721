"""Brings a release to an environment, through every gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import (
    AccessDeniedError,
    ArtifactCorruptError,
    ArtifactNotFoundError,
    FieldConflictError,
    ManifestError,
    NotReadyError,
    SigningKeyError,
    VerificationError,
)
from airflow_cd.hooks.history import change_of, changes_alias, emit
from airflow_cd.hooks.notifications import notify_of_change
from airflow_cd.hooks.releases import actor_of, load_ref, read_release
from airflow_cd.links.release import ApprovalLink, ServiceLink
from airflow_cd.operators.gates import GatesMixin
from airflow_cd.operators.rollouts import RolloutsMixin
from airflow_cd.operators.turns import RetryOnConflictMixin

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_cd.model.release import Release, ReleaseRef
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import DeployOutcome, Record


class DeployOperator(RolloutsMixin, RetryOnConflictMixin, GatesMixin, BaseOperator):
    """
    Deploys the run's release, if it may be deployed.

    In this order: where the environment demands signatures, a release that is not the one that was signed
    fails the task before the target is asked anything; the release that runs already is left alone; an older
    one than what runs is skipped as superseded; one that was rolled back is not deployed again by itself, nor
    is any while the environment is held; a missing or foreign approval fails the task; a closed window
    or a freeze holds it, on no slot, and when it opens, or is overridden, everything is decided anew (or it
    fails the task, where the environment says so); the target then compares and sets, so
    that of two deployments based on the same record one wins, and the other waits, in the triggerer, until
    it can decide anew.

    Where the target takes its time (a canary on Kubernetes), the rollout goes on in the triggerer, and the
    task ends when it does: with what was measured in its XCom, or failed when the release was aborted.

    The XCom is a mapping with ``digest``, ``version``, ``generation``, ``url``, ``changed`` and
    ``verified_by`` (id of the key whose signature let the release in, ``None`` where none is demanded).

    :param service: what to deploy
    :param environment: name of the environment
    :param release_task_id: the task whose XCom is the release
    :param approval_task_id: the approval task; ``None`` where no approval is asked for
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
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=[changes_alias(service.name, environment)], **kwargs)
        self.service = service
        self.environment = environment
        self.release_task_id = release_task_id
        self.approval_task_id = approval_task_id
        if approval_task_id is None:
            # Airflow shows a link that leads nowhere, and stores it, which each takes a request.
            self.operator_extra_links = (ServiceLink(),)

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Deploy the release.

        :raises TaskDeferred: somebody else deploys here, or a window is closed; decides anew later
        :raises AirflowSkipException: superseded
        :raises AirflowFailException: not signed as demanded, changed in the store, not approved, no window
            ever opens, or the release did not become ready
        """
        return self.in_turn(context)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Check every gate and deploy. :raises DeployConflictError: somebody else deploys here"""
        ref = load_ref(context, self.release_task_id)
        release, verified_by = self._verified(ref)
        target = self._open_target()
        record = target.record()
        running = record.current.release if record.current else None
        self.log.info(
            "%s runs %s", self.environment, f"{running.version} {running.digest}" if running else "nothing"
        )
        approval = None
        if (running is None or running.digest != release.digest) and not self._is_ours(
            context, release, record
        ):
            approval = self._pass_gates(context, release, record)
        done = self._deploy(target, release, ref.store, record, context, approval, verified_by)
        return self._done(
            context, target, done, verified_by=verified_by, changed=done.generation != record.generation
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
        told = {"measurements": [one.model_dump(mode="json") for one in measured]} if measured else {}
        return {
            "digest": release.digest,
            "version": release.version,
            "generation": record.generation,
            "url": self.service_url,
            "changed": changed,
            "verified_by": verified_by,
            **told,
        }

    def _over(
        self, context: Context, target: ProgressiveTarget, record: Record, outcome: DeployOutcome, **more: Any
    ) -> dict[str, Any]:
        """End with the rollout: fail when it was aborted, skip when another release took its place."""
        if outcome.state == "promoted":
            return self._done(context, target, record, verified_by=more["verified_by"], changed=True)
        if outcome.state == "aborted":
            runs = record.current.release.version if record.current else "nothing"
            self._tell_of_abort(context, record)
            raise AirflowFailException(f"aborted: {outcome.reason}. {self.environment} runs {runs}.")
        raise AirflowSkipException(f"superseded: {outcome.reason}")

    def _verified(self, ref: ReleaseRef) -> tuple[Release, str | None]:
        """Return the release, and the id of the key whose signature lets it in here."""
        from airflow_cd.hooks.verification import verify_release

        try:
            release = read_release(ref)
            key_id = verify_release(self.service, self.service.environment(self.environment), ref, release)
        except (ArtifactCorruptError, ArtifactNotFoundError, SigningKeyError, VerificationError) as error:
            raise AirflowFailException(f"{self.environment} was not touched: {error}") from error
        if key_id is not None:
            self.log.info("Manifest and provenance are signed by key %s", key_id)
        return release, key_id

    def _deploy(
        self,
        target: Target,
        release: Release,
        store_url: str,
        record: Record,
        context: Context,
        approval: str | None,
        verified_by: str | None,
    ) -> Record:
        from airflow_cd.hooks.adapters import open_store
        from airflow_cd.hooks.verification import explain_archive
        from airflow_cd.targets.base import ProgressiveTarget

        store = open_store(store_url)
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
        record = self._see_through(begun, target, verified_by=verified_by)
        if (outcome := outcome_of(record, token)).state != "promoted":
            self._over(context, target, record, outcome)
        return record
