"""The end of a pipeline whose service goes to production by a release train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_cd.hooks.readiness import make_ready
from airflow_cd.hooks.releases import load_ref

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service

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
        """Make it ready. :raises DownstreamTasksSkipped: always, but for a bypass"""
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
