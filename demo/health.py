"""What Airflow tells of its components: heartbeats, and processes that the scheduler saw end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx


def are_healthy(client: httpx.Client, names: Iterable[str], since: datetime | None) -> bool:
    """
    Return whether the API server answers, and says that these components are healthy.

    :param since: heartbeats before this moment do not count
    """
    try:
        response = client.get("/api/v2/monitor/health")
        report: dict[str, Any] = response.raise_for_status().json()
    except httpx.HTTPError:
        return False
    return all(_beats(report, name.replace("-", "_"), since) for name in names)


def times_noted(log: Path, run_id: str, task_id: str) -> int:
    """Return how often the scheduler with this log noticed that a process of the task ended."""
    lines, place = log.read_text(errors="replace").splitlines(), f"task_id='{task_id}', run_id='{run_id}'"
    return sum("Received executor event" in line and place in line for line in lines)


def _beats(report: Mapping[str, Any], name: str, since: datetime | None) -> bool:
    if name == "api_server":  # it answered
        return True
    state = report.get(name) or {}
    if state.get("status") != "healthy":
        return False
    return since is None or datetime.fromisoformat(state[f"latest_{name}_heartbeat"]) > since
