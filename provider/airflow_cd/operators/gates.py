"""What a release has to pass before an environment takes it: order, failures, holds, approval and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import ApprovalError, WindowClosedError
from airflow_cd.hooks.releases import actor_of, superseded_by
from airflow_cd.operators.windows import WindowsMixin

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.approval import Decision
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.record import Record


class GatesMixin(WindowsMixin):
    """
    Lets an operator decide whether a release may be deployed.

    Each gate is asked anew at every turn: what was true before a wait need not be true after it.
    """

    log: Any
    service: Service
    environment: str
    approval_task_id: str | None

    def _pass_gates(self, context: Context, release: Release, record: Record) -> str | None:
        """Return how the deployment was allowed; raise when it is not."""
        if newer := superseded_by(self.service, release, record, on_its_way=True):
            raise AirflowSkipException(
                f"superseded: {self.environment} runs {newer.version} ({newer.revision.short}), "
                f"which is newer than {release.version} ({release.revision.short})"
            )
        self._refuse_aborted(context, release, record)
        self._refuse_rolled_back(context, release, record)
        self._respect_hold(context, record)
        try:
            allowed = self._check_approval(context, release)
            overridden = self._pass_windows(context, release)
            return "; ".join(filter(None, (allowed, overridden))) or None
        except (ApprovalError, WindowClosedError) as error:
            raise AirflowFailException(str(error)) from error

    def _refuse_rolled_back(self, context: Context, release: Release, record: Record) -> None:
        """A failed candidate is not tried again by itself; a person who triggers the DAG may."""
        rolled_back = record.current is not None and record.current.rolled_back_from == release.digest
        if rolled_back and context["dag_run"].run_type != "manual":
            raise AirflowSkipException(
                f"{release.version} was rolled back in {self.environment}; "
                "trigger the DAG by hand to try it again"
            )

    def _refuse_aborted(self, context: Context, release: Release, record: Record) -> None:
        """What was aborted is not tried again by itself, neither by this task's retry nor by another run."""
        aborted = record.aborted
        if aborted is None or aborted.release.digest != release.digest:
            return
        if aborted.actor == actor_of(context):
            raise AirflowFailException(f"aborted: {aborted.reason}")
        if context["dag_run"].run_type != "manual":
            raise AirflowSkipException(
                f"{release.version} was aborted in {self.environment} ({aborted.reason}); "
                "trigger the DAG by hand to try it again"
            )

    def _respect_hold(self, context: Context, record: Record) -> None:
        """After a person went back to an older release, only a person's later decision goes on."""
        hold = record.hold
        if hold is None or context["dag_run"].run_type == "manual":
            return
        decision = self._decision(context)
        if decision is not None and decision.at is not None and decision.at > hold.since:
            return
        raise AirflowSkipException(
            f"{self.environment} is held since {hold.by} rolled it back at "
            f"{hold.since.isoformat(timespec='seconds')} ({hold.reason or 'no reason given'}); "
            "trigger the DAG by hand to deploy and lift the hold"
        )

    def _check_approval(self, context: Context, release: Release) -> str | None:
        from airflow_cd.model.approval import Approval

        if self.approval_task_id is None:
            return None
        policy = self.service.environment(self.environment).approval or Approval()
        allowed = policy.check(self._decision(context), release.digest, release.authors)
        self.log.info("Approval: %s", allowed)
        return allowed

    def _decision(self, context: Context) -> Decision | None:
        """Return what a person decided in this run, if anybody did."""
        from airflow_cd.hooks.decisions import kept_decision

        if self.approval_task_id is None:
            return None
        return kept_decision(context, self.service, self.environment, self.approval_task_id)
