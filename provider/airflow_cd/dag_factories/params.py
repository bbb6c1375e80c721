"""What a person is asked for who triggers a DAG by hand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_cd.model.decision_requests import CHOOSE, PREVIOUS
from airflow_cd.model.service import Service
from airflow_cd.operators.build import SHA_PATTERN
from airflow_cd.releases.questions import LONGEST_REASON
from airflow_cd.trains.select import BOARD, BYPASS


def set_revision_param(dag: DAG) -> None:
    """
    Give the DAG its ``revision`` param, shown in the form of *Trigger DAG*.

    All DAGs share one object: making and validating it takes longer than the rest of a DAG, and nothing
    about it differs. Hence it is set behind the back of the attribute's own validation.
    """
    object.__setattr__(dag, "params", _revision_params())


def set_rollback_params(dag: DAG, service: Service) -> None:
    """Give the DAG the params of a rollback; services with equally named environments share them."""
    names = tuple(environment.name for environment in service.environments)
    object.__setattr__(dag, "params", _rollback_params(names))


def set_member_params(dag: DAG) -> None:
    """Give the DAG of a train's member the params ``revision`` and ``train``."""
    object.__setattr__(dag, "params", _member_params())


def set_train_params(dag: DAG, members: Sequence[str]) -> None:
    """Give a train's DAG the param ``hold``."""
    hold = Param(
        [],
        type="array",
        items={"type": "string", "enum": list(members)} if members else {"type": "string"},
        title="Hold",
        description="Services that stay behind this time.",
        source="dag",
    )
    object.__setattr__(dag, "params", _validated(hold=hold))


@cache
def _member_params() -> ParamsDict:
    train = Param(
        BOARD,
        type="string",
        enum=[BOARD, BYPASS],
        title="Train",
        description=f"`{BOARD}`: wait for the next departure. `{BYPASS}`: a hotfix, which goes to production "
        "at once when it is approved.",
        source="dag",
    )
    return _validated(revision=_revision_params().get_param("revision"), train=train)


@cache
def _revision_params() -> ParamsDict:
    revision = Param(
        None,
        type=["null", "string"],
        pattern=SHA_PATTERN,
        title="Revision",
        description="Full SHA of the commit to release; empty for the head of the branch.",
        source="dag",
    )
    return _validated(revision=revision)


@cache
def _rollback_params(environments: tuple[str, ...]) -> ParamsDict:
    environment = Param(
        environments[-1],
        type="string",
        enum=list(environments),
        title="Environment",
        description="What is rolled back.",
        source="dag",
    )
    release = Param(
        PREVIOUS,
        type="string",
        examples=[PREVIOUS, CHOOSE],
        title="Release",
        description=f"`{PREVIOUS}`: what ran before, at once. `{CHOOSE}`: pick from those that are still "
        "there, under Required Actions. Or a version, a commit or a digest.",
        minLength=1,
        maxLength=200,
        source="dag",
    )
    reason = Param(
        "",
        type=["string", "null"],
        title="Reason",
        description="Kept in the history.",
        maxLength=LONGEST_REASON,
        source="dag",
    )
    return _validated(environment=environment, release=release, reason=reason)


def _validated(**params: Param) -> ParamsDict:
    made = ParamsDict(params)
    made.validate()
    return made
