"""Takes what is ready of a service on board of its train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.hooks.readiness import ABSENT, ready_release
from airflow_cd.hooks.releases import read_release, superseded_by

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service


class SelectReleaseOperator(BaseOperator):
    """
    Finds the newest release of a member that was healthy in the environment before production.

    The XCom is that release (:class:`~airflow_cd.model.release.ReleaseRef` as JSON); it stays the same for
    the whole run, whatever gets ready meanwhile. A member is skipped that has nothing new, that the run's
    param ``hold`` names, whose production is held, or whose release was rolled back there before; the XCom
    key ``absent`` says why.

    :param service: the member
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e8f0fe"

    def __init__(self, *, service: Service, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.service = service

    def execute(self, context: Context) -> dict[str, Any]:
        """Board. :raises AirflowSkipException: it stays behind"""
        from airflow_cd.hooks.adapters import open_target

        if self.service.name in (context["params"].get("hold") or ()):
            self._stay(context, "held for this departure")
        ref = ready_release(self.service)
        if ref is None:
            self._stay(context, "nothing is ready")
        release, production = read_release(ref), self.service.production
        self._check_stage_before(context, release)
        record = open_target(self.service, production).record()
        current = record.current
        if current is not None and current.release.digest == release.digest:
            self._stay(context, f"nothing new: {production.name} runs {release.version}")
        if newer := superseded_by(self.service, release, record):
            self._stay(context, f"{production.name} runs {newer.version}, which is newer")
        if current is not None and current.rolled_back_from == release.digest:
            self._stay(context, f"{release.version} was rolled back in {production.name}")
        if record.hold is not None:
            self._stay(context, f"{production.name} is held since {record.hold.by} rolled it back")
        self.log.info("%s %s is on board: %s", self.service.name, release.version, release.digest)
        return ref.model_dump(mode="json")

    def _check_stage_before(self, context: Context, release: Release) -> None:
        """What was found bad there after it got ready must not go on."""
        from airflow_cd.hooks.adapters import open_target

        if len(self.service.environments) < 2:
            return
        stage = self.service.environments[-2]
        current = open_target(self.service, stage).record().current
        if current is not None and current.rolled_back_from == release.digest:
            self._stay(context, f"{release.version} was rolled back in {stage.name}")

    def _stay(self, context: Context, why: str) -> NoReturn:
        context["ti"].xcom_push(key=ABSENT, value=why)
        raise AirflowSkipException(why)
