"""The questions that wait for an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from airflow_cd.cli.api import AirflowApi

Question = dict[str, Any]


def waiting_questions(
    api: AirflowApi, dag_id: str = "~", state: Sequence[str] = ("awaiting_input",)
) -> Iterator[Question]:
    """
    Yield the questions that wait for an answer, newest first, as Airflow's API returns them.

    :param dag_id: whose; ``~`` for those of all DAGs
    :param state: of the tasks that ask; a rollout is ``deferred``, since it is watched meanwhile
    """
    yield from api.rows(
        f"/dags/{quote(dag_id)}/dagRuns/~/hitlDetails",
        "hitl_details",
        response_received=False,
        state=list(state),
        order_by="-created_at",
    )


def stage_of(question: Question, task: str) -> str | None:
    """Return the environment the question is about, if a task of this name asks it."""
    # A train's own question is about no single environment or member: its stage is empty.
    stage, _, name = str(question["task_instance"]["task_id"]).rpartition(".")
    return stage if name == task else None
