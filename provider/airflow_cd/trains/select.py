"""Selects the release that each member of a train deploys, and marks releases as ready."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.exceptions import RevisionNotFoundError
from airflow_cd.releases.adapters import open_source, open_store, store_url
from airflow_cd.releases.run import load_ref, superseded_by
from airflow_cd.releases.uses import record_release
from airflow_cd.releases.verification import require_signatures

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.release import Release, ReleaseRef
    from airflow_cd.model.service import Service

log = logging.getLogger(__name__)

# Under this XCom key a member that stays behind tells why.
ABSENT = "absent"


def make_ready(service: Service, ref: ReleaseRef) -> bool:
    """
    Let the service's next train take this release, unless a newer one waits already.

    :return: whether it is this one that waits now
    :raises SourceError: the repository cannot be asked which one is newer
    """
    before = ready_release(service)
    if before is not None and before.revision != ref.revision and _is_newer(service, before, ref):
        log.info("%s waits already, which is newer than %s", before.version, ref.version)
        return False
    open_store(store_url(service)).put_ref(_name(service), {"release": ref.model_dump(mode="json")})
    return True


def ready_release(service: Service) -> ReleaseRef | None:
    """Return the release that waits, or ``None`` when none ever did."""
    from airflow_cd.model.release import ReleaseRef

    kept = open_store(store_url(service)).get_ref(_name(service))
    return None if kept is None else ReleaseRef.model_validate(kept["release"])


def _is_newer(service: Service, one: ReleaseRef, other: ReleaseRef) -> bool:
    with open_source(service) as source:
        try:
            return source.is_ancestor(other.revision, one.revision)
        except RevisionNotFoundError:  # force-pushed away: what was made ready last counts
            return False


def _name(service: Service) -> str:
    return f"ready/{service.name}"


# The value of the DAG's param `train` that goes to production without the train.
BYPASS, BOARD = "bypass", "board"


class MarkReadyOperator(BaseOperator):
    """
    Lets the service's train take this run's release, and skips what would bring it to production here.

    With the param ``train: bypass`` it does neither: the run goes on to production's approval.

    :param service: whose release it is
    :param production_task_id: the first task on the way to production
    :param release_task_id: the task whose XCom is the release
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        service: Service,
        production_task_id: str,
        release_task_id: str = "package",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.production_task_id = production_task_id
        self.release_task_id = release_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Make it ready.

        :raises DownstreamTasksSkipped: always, but for a bypass
        """
        from airflow.sdk.exceptions import DownstreamTasksSkipped

        ref = load_ref(context, self.release_task_id)
        told = {"digest": ref.digest, "version": ref.version, "train": self.service.train}
        if context["params"].get("train") == BYPASS:
            self.log.info("%s goes to production without the train %s", ref.version, self.service.train)
            return {**told, "ready": False}
        ready = make_ready(self.service, ref)
        if ready:
            self.log.info("%s waits for the next departure of the train %s", ref.version, self.service.train)
        context["ti"].xcom_push(key="return_value", value={**told, "ready": ready})
        raise DownstreamTasksSkipped(tasks=[self.production_task_id])


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
        """
        Board.

        :raises AirflowSkipException: it stays behind
        """
        from airflow_cd.releases.adapters import open_target

        if self.service.name in (context["params"].get("hold") or ()):
            self._stay(context, "held for this departure")
        ref = ready_release(self.service)
        if ref is None:
            self._stay(context, "nothing is ready")
        production = self.service.production
        release, _ = require_signatures(self.service, production, ref)
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
        # The pipeline's run is over, and this one may wait for its departure while newer releases get ready.
        record_release(context, open_store(store_url(self.service)), release, ref)
        self.log.info("%s %s is on board: %s", self.service.name, release.version, release.digest)
        return ref.model_dump(mode="json")

    def _check_stage_before(self, context: Context, release: Release) -> None:
        """What was found bad there after it got ready must not go on."""
        from airflow_cd.releases.adapters import open_target

        if len(self.service.environments) < 2:
            return
        stage = self.service.environments[-2]
        current = open_target(self.service, stage).record().current
        if current is not None and current.rolled_back_from == release.digest:
            self._stay(context, f"{release.version} was rolled back in {stage.name}")

    def _stay(self, context: Context, why: str) -> NoReturn:
        context["ti"].xcom_push(key=ABSENT, value=why)
        raise AirflowSkipException(why)
