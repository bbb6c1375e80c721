"""Takes a healthy release back because another one on its train was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.hooks.task_states import WENT_WRONG, task_states
from airflow_cd.operators.rollback import RollbackOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


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
