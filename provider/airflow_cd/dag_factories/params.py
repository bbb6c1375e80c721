"""The one param a pipeline has: which commit to release."""

from __future__ import annotations

from functools import cache

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_cd.operators.revision import SHA_PATTERN


def set_revision_param(dag: DAG) -> None:
    """
    Give the DAG its ``revision`` param, shown in the form of *Trigger DAG*.

    All DAGs share one object: making and validating it takes longer than the rest of a DAG, and nothing
    about it differs. Hence it is set behind the back of the attribute's own validation.
    """
    object.__setattr__(dag, "params", _params())


@cache
def _params() -> ParamsDict:
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
