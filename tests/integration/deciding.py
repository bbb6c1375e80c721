"""How people decide about a parked release: they answer, or they go around the question."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import quote

from harness.airflow import times_noted
from harness.api import AirflowApi
from harness.runs import Run
from harness.waiting import NotInTimeError, wait_until

APPROVE = "production.approve"
DEPLOY = "production.deploy"
HEALTH = "production.health"


def parked(run: Run) -> Run:
    """Wait until the run asks for its approval, and the scheduler knows that."""
    run.wait_for_task(APPROVE, "awaiting_input", timeout=120)
    wait_until_noted(run, APPROVE)
    return run


def parked_again(run: Run) -> None:
    """Wait until a run that went further before asks for its approval again."""
    wait_until(
        lambda: run.states()[APPROVE] == "awaiting_input", "it asks again", timeout=60, explain=run.explain
    )
    wait_until_noted(run, APPROVE)


def wait_until_noted(run: Run, task_id: str) -> None:
    """
    Wait until the scheduler has noticed the end of each process that a task had so far.

    Airflow 3.3.2 takes a task that goes on before that for lost. It may have missed the end of one that was
    killed: then this waits in vain for a while, and goes on.
    """
    log = run.api.scheduler_log
    assert log is not None
    processes = logs(run, task_id).count("Filling up the DagBag")
    with suppress(NotInTimeError):
        wait_until(
            lambda: times_noted(log, run.run_id, task_id) >= processes, f"{task_id} is noted", timeout=15
        )


def answer(run: Run, option: str, api: AirflowApi, task_id: str = APPROVE, **inputs: str) -> None:
    """
    Answer until the answer is taken.

    Airflow 3.3.2 loses one that arrives before its scheduler has noticed that the task parked, and retries
    the task, which asks again. People are never that fast; a test is.
    """

    def taken() -> bool:
        if run.states()[task_id] in ("success", "failed", "skipped"):
            return True
        if is_asking(run, task_id):
            wait_until_noted(run, task_id)
            run.answer(task_id, option, api, **inputs)
        return False

    wait_until(taken, f"the answer {option} is taken", timeout=90, every=1, explain=run.explain)


def is_asking(run: Run, task_id: str = APPROVE) -> bool:
    """Return whether the run waits for an answer that nobody has given yet."""
    return run.states()[task_id] == "awaiting_input" and not run.question(task_id)["response_received"]


def wait_until_asked_again(run: Run) -> None:
    """Wait until an answer was found wanting."""
    wait_until(lambda: is_asking(run), "the question is asked again", timeout=60, explain=run.explain)


def logs(run: Run, task_id: str) -> str:
    """Return what the task logged in all of its tries."""
    tries = run.api.task_instances(run.dag_id, run.run_id)[task_id]["try_number"]
    return "\n".join(run.log(task_id, number) for number in range(1, tries + 1))


def mark_in_bulk(run: Run, task_id: str, state: str, api: AirflowApi | None = None) -> None:
    """Mark a task as the grid does with several: Airflow 3.3.2 leaves no audit entry of that."""
    entity = {"task_id": task_id, "new_state": state}
    _patch(run, "/taskInstances", {"actions": [{"action": "update", "entities": [entity]}]}, api)


def mark_group(run: Run, group: str, state: str, api: AirflowApi | None = None) -> None:
    """Mark all tasks of a task group."""
    _patch(run, f"/taskGroupInstances/{group}", {"new_state": state}, api)


def mark_run(run: Run, state: str, api: AirflowApi | None = None) -> None:
    """Mark the whole DAG run."""
    _patch(run, "", {"state": state}, api)


def forge_xcom(run: Run, task_id: str, value: Any, api: AirflowApi) -> None:
    """Write what the task would have left, or replace it, as this user."""
    path = f"{_run(run)}/taskInstances/{quote(task_id)}/xcomEntries"
    if run.xcom(task_id) is None:
        api.request("POST", path, json={"key": "return_value", "value": value})
    else:
        api.request("PATCH", f"{path}/return_value", json={"value": value})
    assert run.xcom(task_id) == value


def _patch(run: Run, path: str, body: dict[str, Any], api: AirflowApi | None) -> None:
    (api or run.api).request("PATCH", f"{_run(run)}{path}", json=body)


def _run(run: Run) -> str:
    return f"/api/v2/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}"
