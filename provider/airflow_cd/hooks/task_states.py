"""How other tasks of the same run ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

WENT_WRONG = ("failed", "upstream_failed")


def task_states(context: Any, task_ids: Iterable[str]) -> dict[str, str | None]:
    """Return the state of each of these tasks of this run; ``None`` for one that has none yet."""
    run, wanted = context["dag_run"], list(task_ids)
    if not wanted:
        return {}
    found = context["ti"].get_task_states(dag_id=run.dag_id, task_ids=wanted, run_ids=[run.run_id])
    states = found.get(run.run_id, {})
    return {task_id: name_of(states.get(task_id)) for task_id in wanted}


def name_of(state: Any) -> str | None:
    """Return the state as Airflow writes it."""
    return None if state is None else str(getattr(state, "value", state))
