"""Reports what a train deployed and what stayed behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.model.train import BACK, BOARDING, RECALL
from airflow_cd.releases.notifications import notify_of_train
from airflow_cd.releases.run import WENT_WRONG, task_states
from airflow_cd.trains.select import ABSENT

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.train import Train

# Of one member: where it boards, is deployed, is watched, goes back, and is taken back with the others.
_TASKS = (f"{BOARDING}.{{}}", "{}.deploy", "{}.health", f"{BACK}.{{}}", f"{RECALL}.{{}}")
_ABSENT = "not on board"
_BAD = ("rolled back", "failed", "stayed behind")


class TrainReportOperator(BaseOperator):
    """
    Sums the journey up, and fails when something went wrong, so that the run does.

    The XCom maps each member to ``arrived``, ``rolled back``, ``failed``, ``stayed behind`` or
    ``not on board``. A journey without passengers is a good one.

    :param train: the train
    :param members: names of the services
    :param departure_task_id: the task that let the train depart, or did not
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e6f4ea"

    def __init__(
        self, *, train: Train, members: Sequence[str], departure_task_id: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.train = train
        self.members = list(members)
        self.departure_task_id = departure_task_id

    def execute(self, context: Context) -> dict[str, str]:
        """
        Sum up.

        :raises AirflowFailException: it did not depart, or not everybody on board arrived
        """
        ids = [task.format(member) for member in self.members for task in _TASKS]
        states = task_states(context, [self.departure_task_id, *ids])
        outcomes = {member: _outcome(member, states) for member in self.members}
        for member, outcome in outcomes.items():
            why = context["ti"].xcom_pull(task_ids=f"{BOARDING}.{member}", key=ABSENT)
            self.log.info("%s: %s%s", member, outcome, f" ({why})" if why else "")
        context["ti"].xcom_push(key="return_value", value=outcomes)
        if set(outcomes.values()) != {_ABSENT}:
            notify_of_train(context, self.train, "train_arrived", "arrived", {"outcomes": outcomes})
        if states[self.departure_task_id] in WENT_WRONG:
            raise AirflowFailException("the train did not depart: nothing was deployed")
        wrong = [f"{member} {outcome}" for member, outcome in outcomes.items() if outcome in _BAD]
        if wrong:
            raise AirflowFailException(f"not everything arrived: {', '.join(wrong)}")
        if "arrived" not in outcomes.values():
            self.log.info("Nothing was on board.")
        return outcomes


def _outcome(member: str, states: dict[str, str | None]) -> str:
    board, deploy, health, *back = (states[task.format(member)] for task in _TASKS)
    if "success" in back:
        return "rolled back"
    if board == "skipped":
        return _ABSENT
    if "failed" in (board, deploy, health, *back):
        return "failed"
    return "arrived" if health == "success" else "stayed behind"
