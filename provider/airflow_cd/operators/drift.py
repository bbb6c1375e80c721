"""Looks whether an environment still is what its release set, and puts it right where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.links.release import ServiceLink
from airflow_cd.model.drift import HEAL
from airflow_cd.operators.retry_on_conflict import retry_on_conflict
from airflow_cd.releases.notifications import notify

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.drift import DriftSettings
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import Difference
    from airflow_cd.targets.record import Record


class DriftOperator(BaseOperator):
    """
    Compares what runs with what the release that runs set there.

    With ``drift: report`` a difference fails the task, and is in its log; with ``drift: heal`` it is put
    right. While a release is on its way in, nothing is compared. The XCom is a mapping of what differs (kind
    and name -> unified diff) and whether it was ``healed``.

    :param service: whose
    :param environment: name of the environment
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ServiceLink(),)
    ui_color = "#f3e8fd"

    def __init__(self, *, service: Service, environment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.environment = environment

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Compare, and heal where that is wanted.

        :raises AirflowSkipException: nothing was deployed yet, or a release is on its way in
        :raises AirflowFailException: something differs, and is only to be reported
        """
        return retry_on_conflict(partial(self._try, context), self.log)

    def next_turn(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Decide again, from the beginning."""
        return self.execute(context)

    def _try(self, context: Context) -> dict[str, Any]:
        """
        Compare once.

        :raises DeployConflictError: another run changes the environment
        """
        from airflow_cd.releases.adapters import open_target
        from airflow_cd.targets.base import DeclarativeTarget

        environment = self.service.environment(self.environment)
        target = open_target(self.service, environment)
        assert isinstance(target, DeclarativeTarget), "validated with the service"
        record = target.record()
        self._refuse_to_compare(record)
        assert record.current is not None and environment.drift is not None
        found = target.drift()
        self.service_url = target.url()
        if not found:
            self.log.info("Everything is as %s set it", record.current.release.version)
            return {"differences": {}, "healed": False}
        return self._found(context, target, record, found, environment.drift)

    def _refuse_to_compare(self, record: Record) -> None:
        if record.rollout is not None:
            coming = record.rollout.candidate.release.version
            raise AirflowSkipException(f"{coming} is on its way in; nothing is compared meanwhile")
        if record.current is None:
            raise AirflowSkipException(f"nothing was deployed to {self.environment} yet")

    def _found(
        self,
        context: Context,
        target: Any,
        record: Record,
        found: Sequence[Difference],
        policy: DriftSettings,
    ) -> dict[str, Any]:
        differences = {one.name: one.text for one in found}
        for name, text in differences.items():
            self.log.warning(
                "%s is not as %s set it:\n%s", name, record.current and record.current.release.version, text
            )
        if policy.action == HEAL:
            target.heal()
            self.log.info("Put right: %s", ", ".join(differences))
        told = {"differences": differences, "healed": policy.action == HEAL}
        context["ti"].xcom_push(key="return_value", value=told)
        key = f"{record.generation}/{context['ti'].run_id}"
        notify(context, self.service, self.environment, "drifted", key, told)
        if policy.action != HEAL:
            raise AirflowFailException(
                f"{self.environment} is not as its release set it: {', '.join(differences)}. Deploy again, "
                "take the change into the source, or write `drift: heal`."
            )
        return told
