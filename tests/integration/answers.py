"""Answering approvals faster than people do."""

from __future__ import annotations

from demo.api import AirflowApi
from demo.runs import Run
from demo.waiting import wait_until

APPROVE = "production.approve"


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
            run.answer(task_id, option, api, **inputs)
        return False

    wait_until(taken, f"the answer {option} is taken", timeout=90, every=1, explain=run.explain)


def is_asking(run: Run, task_id: str = APPROVE) -> bool:
    """Tell whether the approval waits and has no answer yet."""
    return run.states()[task_id] == "awaiting_input" and not run.question(task_id)["response_received"]


def wait_until_asked_again(run: Run) -> None:
    """Wait until an answer that does not count was followed by the same question."""
    wait_until(lambda: is_asking(run), "the question is asked again", timeout=60, explain=run.explain)
