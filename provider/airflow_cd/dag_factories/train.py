"""The DAG of a release train: several services that reach production together."""

from __future__ import annotations

from collections.abc import Iterable

from airflow.sdk import DAG, CronTriggerTimetable

from airflow_cd.dag_factories.configured import dag_defaults
from airflow_cd.dag_factories.documentation import train_doc
from airflow_cd.dag_factories.journey import TAKEN, Journey
from airflow_cd.dag_factories.params import set_train_params
from airflow_cd.exceptions import ApprovalError, DefinitionError
from airflow_cd.model.approval import Approval, strictest
from airflow_cd.model.service import Service
from airflow_cd.model.train import TRAIN_PREFIX, Train, departure_order, predecessors


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
    Return who is asked. Without a word about it, it is whoever may approve all members that would ask.

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
