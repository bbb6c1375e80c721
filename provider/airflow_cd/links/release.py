"""
Links from a task to the commit, the approval and the running service.

Airflow asks for them in the task's own process when it ends, parks or defers, so they are made of what the
operator has found out by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


def approval_url(dag_id: str, run_id: str, task_id: str) -> str:
    """Return the address of the page on which a person answers this approval task."""
    from urllib.parse import quote

    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    path = f"dags/{quote(dag_id)}/runs/{quote(run_id)}/tasks/{quote(task_id)}/required_actions"
    return f"{base.rstrip('/')}/{path}"


class CommitLink(BaseOperatorLink):
    """The commit's page at its git host, when the host is known."""

    name = "Commit"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string when there is none."""
        return getattr(operator, "commit_url", None) or ""


class ServiceLink(BaseOperatorLink):
    """Where the deployed service answers."""

    name = "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string when there is none."""
        return getattr(operator, "service_url", None) or ""


class ApprovalLink(BaseOperatorLink):
    """The page on which a person decides, or decided, on this release."""

    name = "Approval"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string when this pipeline asks nobody."""
        task_id = getattr(operator, "approval_task_id", None)
        return approval_url(ti_key.dag_id, ti_key.run_id, task_id) if task_id else ""
