"""The DAG of a release train: selection, departure, each member's deployment, report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable, TaskGroup

from airflow_cd.dag_factories.dag_defaults import dag_defaults
from airflow_cd.dag_factories.documentation import train_doc
from airflow_cd.dag_factories.params import set_train_params
from airflow_cd.dag_factories.pipeline import RETRIES, common_arguments
from airflow_cd.dag_factories.rollback import ROLLBACK_RETRIES, ROLLBACK_RETRY_DELAY
from airflow_cd.exceptions import ApprovalError, DefinitionError
from airflow_cd.model.approval import Approval, strictest
from airflow_cd.model.service import Service
from airflow_cd.model.train import BACK, BOARDING, RECALL, TRAIN_PREFIX, Train, departure_order, predecessors
from airflow_cd.operators.deploy import DeployOperator
from airflow_cd.operators.rollback import RollbackOperator
from airflow_cd.sensors.approval import ApprovalSensor
from airflow_cd.sensors.health import HealthCheckSensor
from airflow_cd.trains.departure import DepartureSensor
from airflow_cd.trains.deploy import OtherMemberFailed, StaysBehind
from airflow_cd.trains.report import TrainReportOperator
from airflow_cd.trains.select import SelectReleaseOperator

_ASKS, _ASKS_NOT, _LAST = "approve", "depart", "arrive"
# No member can be called so.
TAKEN = {BOARDING, BACK, RECALL, _ASKS, _ASKS_NOT, _LAST}
_WHATEVER_HAPPENED = "all_done"


class Journey:
    """
    Adds the tasks of one train to its DAG.

    :param members: in an order in which they may be deployed one after the other
    :param before: service -> all that arrive before it is deployed
    :param policy: who lets the train depart; ``None`` asks nobody
    """

    def __init__(
        self,
        dag: DAG,
        train: Train,
        members: Sequence[Service],
        before: dict[str, set[str]],
        policy: Approval | None,
    ) -> None:
        self._dag, self._train, self._members, self._before = dag, train, members, before
        self._policy = policy
        self._names = [member.name for member in members]

    def add(self) -> None:
        """Add all tasks."""
        departure = DepartureSensor(
            task_id=_ASKS_NOT if self._policy is None else _ASKS,
            train=self._train,
            members=self._members,
            policy=self._policy,
            trigger_rule=_WHATEVER_HAPPENED,
            dag=self._dag,
            **RETRIES,
        )
        arrival = TrainReportOperator(
            task_id=_LAST,
            train=self._train,
            members=self._names,
            departure_task_id=departure.task_id,
            trigger_rule=_WHATEVER_HAPPENED,
            dag=self._dag,
            **RETRIES,
        )
        # Groups of their own: a service's group would be before and after those of other services otherwise.
        boarding, back = TaskGroup(BOARDING, dag=self._dag), TaskGroup(BACK, dag=self._dag)
        boards: list[BaseOperator] = []
        healths: dict[str, BaseOperator] = {}
        rollbacks: dict[str, BaseOperator] = {}
        for number, member in enumerate(self._members):
            common = common_arguments(self._dag, member)
            board = SelectReleaseOperator(task_id=member.name, task_group=boarding, **common)
            boards.append(board)
            common["task_group"] = TaskGroup(member.name, dag=self._dag)
            approve = self._approved(member, common, board, departure)
            deploy, healths[member.name] = self._deployed(member, common, board, departure, approve)
            ahead = [healths[other] for other in sorted(self._ahead_of(member)) if other in healths]
            if number >= self._train.max_parallel:  # each one follows the one whose place it takes
                ahead.append(healths[self._names[number - self._train.max_parallel]])
            # All at once, here and below: every task makes the whole DAG when it starts, and each call takes
            # as long as many edges do.
            deploy.set_upstream([departure, *ahead])
            common["task_group"] = back
            health = healths[member.name]
            rollbacks[member.name] = self._rolled_back(member, common, deploy, health)
        departure.set_upstream(boards)
        arrival.set_upstream([departure, *healths.values(), *rollbacks.values()])
        if self._train.on_failure == "train":
            self._go_back_together(healths, rollbacks, arrival)

    def _ahead_of(self, member: Service) -> set[str]:
        """Return the members that arrive before this one is deployed, directly or not."""
        return self._before.get(member.name, set()).intersection(self._names)

    def _others(self, member: Service) -> list[str]:
        """Return the health tasks of all other members."""
        return [f"{name}.health" for name in self._names if name != member.name]

    def _approved(
        self, member: Service, common: dict[str, Any], board: BaseOperator, departure: BaseOperator
    ) -> BaseOperator | None:
        """Return the task that asks about this member alone, where one does."""
        policy = member.production.approval
        if self._train.approve != "service" or policy is None:
            return None
        approve = ApprovalSensor(
            task_id=_ASKS, environment=member.production.name, release_task_id=board.task_id, **common
        )
        [board, departure] >> approve
        return approve

    def _deployed(
        self,
        member: Service,
        common: dict[str, Any],
        board: BaseOperator,
        departure: BaseOperator,
        approve: BaseOperator | None,
    ) -> tuple[BaseOperator, BaseOperator]:
        asks = approve or (departure if self._policy is not None else None)
        depends = self._train.on_failure != "service"
        ahead = sorted(self._ahead_of(member)) if depends else ()
        stays = StaysBehind(
            release_task_id=board.task_id,
            departure_task_id=departure.task_id,
            approval_task_id=asks.task_id if asks else None,
            after={f"{one}.health": f"{BOARDING}.{one}" for one in ahead},
            stops_for=self._others(member) if self._train.on_failure == "train" else (),
        )
        deploy = DeployOperator(
            task_id="deploy",
            environment=member.production.name,
            release_task_id=board.task_id,
            approval_task_id=asks.task_id if asks else None,
            stays=stays,
            trigger_rule=_WHATEVER_HAPPENED,
            **common,
        )
        health = HealthCheckSensor(
            task_id="health",
            environment=member.production.name,
            deploy_task_id=deploy.task_id,
            release_task_id=board.task_id,
            rollback_task_id=f"{BACK}.{member.name}",
            **common,
        )
        if approve is not None:
            approve >> deploy
        deploy >> health
        return deploy, health

    def _rolled_back(
        self, member: Service, common: dict[str, Any], deploy: BaseOperator, health: BaseOperator
    ) -> BaseOperator:
        rollback = RollbackOperator(
            task_id=member.name, health_task_id=health.task_id, **self._going_back(member, common)
        )
        health >> rollback
        rollback.as_teardown(setups=deploy, on_failure_fail_dagrun=False)
        return rollback

    def _recalled(
        self,
        member: Service,
        common: dict[str, Any],
        healths: dict[str, BaseOperator],
        rollbacks: dict[str, BaseOperator],
    ) -> BaseOperator:
        """Whether the others are healthy is known when all are done."""
        own = healths[member.name].task_id
        recall = RollbackOperator(
            task_id=member.name,
            health_task_id=own,
            reason=OtherMemberFailed(own, self._others(member)),
            trigger_rule=_WHATEVER_HAPPENED,
            **self._going_back(member, common),
        )
        [*healths.values(), rollbacks[member.name]] >> recall
        return recall

    def _going_back(self, member: Service, common: dict[str, Any]) -> dict[str, Any]:
        patient = {"retries": ROLLBACK_RETRIES, "retry_delay": ROLLBACK_RETRY_DELAY}
        return {**common, **patient, "environment": member.production.name}

    def _go_back_together(
        self, healths: dict[str, BaseOperator], rollbacks: dict[str, BaseOperator], arrival: BaseOperator
    ) -> None:
        """Who was deployed last goes back first."""
        group = TaskGroup(RECALL, dag=self._dag)
        recalls = {}
        for member in self._members:
            common = {**common_arguments(self._dag, member), "task_group": group}
            recalls[member.name] = self._recalled(member, common, healths, rollbacks)
        arrival.set_upstream(list(recalls.values()))
        for name, recall in recalls.items():
            for earlier in self._before.get(name, set()) & set(recalls):
                recall >> recalls[earlier]


def release_train_dag(train: Train, services: Iterable[Service]) -> DAG:
    """
    Return the DAG ``train_<name>``, which takes the ready releases of its members to production together.

    :param services: its members; others are ignored
    :raises DefinitionError: the order has a cycle, or a member is called as one of the train's own tasks is
    """
    members = {service.name: service for service in services if service.train == train.name}
    if taken := sorted(TAKEN & set(members)):
        raise DefinitionError(
            f"train {train.name!r} cannot take a service of this name: its own tasks are called so",
            value=taken[0],
            remedy="Rename the service, or take it off the train",
        )
    layers = departure_order(members, train.order)
    before = predecessors(train.order)
    order = [name for layer in layers for name in layer if name in members]
    dag = DAG(
        dag_id=f"{TRAIN_PREFIX}{train.name}",
        description=f"Takes {', '.join(order) or 'no service'} to production",
        schedule=CronTriggerTimetable(train.schedule, timezone=train.timezone),
        catchup=False,
        max_active_runs=1,
        doc_md=train_doc(train, [[name for name in layer if name in members] for layer in layers]),
        tags=["cd", "train"],
        **dag_defaults(),
    )
    each = train.approve == "service"
    policy = None if each else _policy(train, members.values())
    policies = {name: _own_policy(train, members[name]) if each else policy for name in order}
    on_board = [_governed(members[name], policies[name]) for name in order]
    journey = Journey(dag, train, on_board, before, policy)
    journey.add()
    set_train_params(dag, order)
    return dag


def _own_policy(train: Train, member: Service) -> Approval | None:
    """Return who is asked about this member alone; ``None`` asks nobody."""
    if train.approval is not None or member.pipeline == "deployment":
        return train.approval
    return member.production.approval or Approval()


def _policy(train: Train, members: Iterable[Service]) -> Approval | None:
    """
    Return the approval of the train: its own, or else the strictest of its members that require one.

    :raises DefinitionError: nobody may approve all of them
    """
    if train.approval is not None:
        return train.approval
    asking = [member for member in members if member.pipeline == "delivery"]
    policies = [member.production.approval or Approval() for member in asking]
    try:
        return strictest(policies) if policies else None
    except ApprovalError as error:
        raise DefinitionError(
            f"train {train.name!r} has no `approval`, and {error}",
            remedy="Say who lets this train depart: approval: {approvers: [...]}",
        ) from error


def _governed(service: Service, policy: Approval | None) -> Service:
    """Return the member with the train's policy in its production, instead of its own."""
    production = service.production.model_copy(update={"approval": policy})
    return service.model_copy(update={"environments": (*service.environments[:-1], production)})
