"""What a person is asked for who triggers a DAG by hand."""

from __future__ import annotations

from functools import cache

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_cd.model.rollback_request import CHOOSE, PREVIOUS
from airflow_cd.model.service import Service
from airflow_cd.operators.revision import SHA_PATTERN


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
    params = ParamsDict({"revision": revision})
    params.validate()
    return params


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
        maxLength=500,
        source="dag",
    )
    params = ParamsDict({"environment": environment, "release": release, "reason": reason})
    params.validate()
    return params
