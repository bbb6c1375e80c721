"""
When the members of a release train are deployed, and when they are rolled back together.

All tasks before such a task have ended, whatever their state: these conditions look at the states themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.model.text import printable
from airflow_cd.model.train import CANCELLED
from airflow_cd.releases.questions import LONGEST_REASON
from airflow_cd.releases.run import WENT_WRONG, task_states
from airflow_cd.trains.select import ABSENT

if TYPE_CHECKING:
    from airflow.sdk import Context


@dataclass(frozen=True)
class StaysBehind:
    """
    Why a member is not deployed, for ``stays`` of :class:`~airflow_cd.operators.deploy.DeployOperator`.

    A member is deployed if it is on board, the train departed, and nothing that it depends on went wrong.

    :param release_task_id: the task that selects the member's release
    :param departure_task_id: the task that lets the train depart
    :param approval_task_id: the member's own approval task, if it has one
    :param after: health task of each member that must be healthy before -> its selection task
    :param stops_for: health tasks of all members, where any failure stops the whole train
    """

    release_task_id: str
    departure_task_id: str
    approval_task_id: str | None = None
    after: Mapping[str, str] = field(default_factory=dict)
    stops_for: Sequence[str] = ()

    def __call__(self, context: Context) -> str | None:
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


@dataclass(frozen=True)
class OtherMemberFailed:
    """
    Why a healthy member is rolled back, for ``reason`` of
    :class:`~airflow_cd.operators.rollback.RollbackOperator`: another member's health failed.

    An unhealthy member was rolled back at once, without waiting for the others.

    :param own: health task of the member
    :param others: health tasks of the other members
    """

    own: str
    others: Sequence[str]

    def __call__(self, context: Context) -> str:
        """
        Return why the member is rolled back.

        :raises AirflowSkipException: it is not
        """
        states = task_states(context, [self.own, *self.others])
        if (own := states[self.own]) != "success":
            raise AirflowSkipException(f"{self.own} ended as {own}: nothing to take back")
        wrong = [name for name in self.others if states[name] in WENT_WRONG]
        if not wrong:
            raise AirflowSkipException("every other member is healthy: nothing to take back")
        return f"{', '.join(wrong)} failed, and the whole train goes back"
