"""Stores decisions in the artifact store of the service, where only workers write."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.approval import Decision
from airflow_cd.releases.adapters import open_store, store_url

if TYPE_CHECKING:
    from airflow_cd.model.service import Service


# How far the clocks of the API server, which makes runs, and of the workers may be apart.
_CLOCKS = timedelta(minutes=1)


def keep_decision(
    context: Any, service: Service, environment: str, task_id: str, decision: Decision | None
) -> None:
    """
    Keep what was decided in this run; the run's earlier decision is replaced.

    :param task_id: the task that asked
    :param decision: ``None`` withdraws the earlier one, because the question is asked again
    """
    store, name = _place(context, service, environment, task_id)
    if decision is None and store.get_ref(name) is None:
        return
    kept = None if decision is None else decision.model_dump(mode="json")
    now = datetime.now(timezone.utc).isoformat()
    store.put_ref(name, {**_asked_by(context, task_id), "decision": kept, "kept_at": now})


def kept_decision(context: Any, service: Service, environment: str, task_id: str) -> Decision | None:
    """
    Return what was decided in this run, or ``None`` when nobody did: the task was marked by hand.

    A run that was made again under the id of a deleted one does not inherit its decision.

    :raises ApprovalError: what is kept there is not a decision of this run
    """
    store, name = _place(context, service, environment, task_id)
    kept = store.get_ref(name)
    if kept is None:
        return None
    asked_by = {key: kept.get(key) for key in ("dag_id", "run_id", "task_id")}
    try:
        decision = Decision.model_validate(kept["decision"]) if kept.get("decision") else None
    except ValidationError as error:
        raise ApprovalError(f"reference {name} in {store.url} is no decision: {error}") from error
    if asked_by != _asked_by(context, task_id):
        raise ApprovalError(f"reference {name} in {store.url} is the decision of another run: {asked_by}")
    return None if _is_of_an_earlier_run(kept, context) else decision


def _is_of_an_earlier_run(kept: dict[str, Any], context: Any) -> bool:
    """Return whether it was decided before this run was made: one of the same id was deleted since."""
    kept_at = kept.get("kept_at")  # versions before 0.2 did not write it
    if kept_at is None:
        return False
    return bool(datetime.fromisoformat(str(kept_at)) < context["dag_run"].run_after - _CLOCKS)


def _place(context: Any, service: Service, environment: str, task_id: str) -> tuple[Any, str]:
    # The configured store, not the one an XCom names: that may be anybody's.
    store = open_store(store_url(service))
    key = "\n".join(_asked_by(context, task_id).values())
    return store, f"approvals/{service.name}/{environment}/{hashlib.sha256(key.encode()).hexdigest()}"


def _asked_by(context: Any, task_id: str) -> dict[str, str]:
    run = context["dag_run"]
    return {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id}
