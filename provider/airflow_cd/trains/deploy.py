"""Deploys the members of a train in order, and rolls them all back when one fails and the train says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.model.text import printable
from airflow_cd.model.train import CANCELLED
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.operators.rollback import RollbackOperator
from airflow_cd.releases.questions import LONGEST_REASON
from airflow_cd.releases.run import WENT_WRONG, task_states
from airflow_cd.trains.select import ABSENT

if TYPE_CHECKING:
    from airflow.sdk import Context


class TrainDeployOperator(DeployOperator):
    """
    Deploys as :class:`DeployOperator` does, if its service is on board, the train departed, and nothing that
    it depends on went wrong.

    All tasks before it have ended, however they did; it looks at their states itself.

    :param departure_task_id: the task that lets the train depart
    :param after: health task of each member that must be healthy before -> its board task
    :param stops_for: health tasks of all members, where any failure stops the whole train
    """

    def __init__(
        self,
        *,
        departure_task_id: str,
        after: Mapping[str, str],
        stops_for: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.departure_task_id = departure_task_id
        self.after = dict(after)
        self.stops_for = list(stops_for)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Check whether it may go, then every gate, and deploy. Raises as the base class, and skips."""
        if why := self._stays(context):
            self.log.info("%s stays behind: %s", self.service.name, why)
            raise AirflowSkipException(why)
        return super().take_turn(context)

    def _stays(self, context: Context) -> str | None:
        """Return why this member is not deployed, or ``None``."""
        ti = context["ti"]
        if not ti.xcom_pull(task_ids=self.release_task_id):
            absent = ti.xcom_pull(task_ids=self.release_task_id, key=ABSENT)
            return f"not on board: {absent or 'its boarding failed'}"
        approval = [self.approval_task_id] if self.approval_task_id else []
        states = task_states(context, [self.departure_task_id, *approval, *self.after, *self.stops_for])
        departed = states[self.departure_task_id]
        if departed != "success":
            return f"the train did not depart: {self.departure_task_id} is {departed}"
        if cancelled := ti.xcom_pull(task_ids=self.departure_task_id, key=CANCELLED):
            return f"the train was cancelled: {printable(str(cancelled), LONGEST_REASON)}"
        if self.approval_task_id is not None and states[self.approval_task_id] != "success":
            return f"it was not approved: {self.approval_task_id} is {states[self.approval_task_id]}"
        for health, board in self.after.items():
            if states[health] != "success" and ti.xcom_pull(task_ids=board):
                return f"it goes after {health.partition('.')[0]}, which did not arrive"
        stopped = [task_id for task_id in self.stops_for if states[task_id] in WENT_WRONG]
        return f"the train stopped: {stopped[0]} failed" if stopped else None


class TrainRollbackOperator(RollbackOperator):
    """
    Rolls back what this run deployed, as :class:`RollbackOperator` does, when another member's health failed.

    What is unhealthy itself went back at once, without waiting for the others.

    :param others: health tasks of the other members
    """

    def __init__(self, *, others: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.others = list(others)

    def _reason(self, context: Context) -> str:
        states = task_states(context, [self.health_task_id, *self.others])
        if (own := states[self.health_task_id]) != "success":
            raise AirflowSkipException(f"{self.health_task_id} ended as {own}: nothing to take back")
        wrong = [name for name in self.others if states[name] in WENT_WRONG]
        if not wrong:
            raise AirflowSkipException("every other member is healthy: nothing to take back")
        return f"{', '.join(wrong)} failed, and the whole train goes back"
