"""Which commit a run is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.sources.base import Source

SHA_PATTERN = r"^[0-9a-f]{40}$"
_STATE_KEY = "revision"


def choose_revision(
    context: Context, service: Service, source: Source, wanted: str | None
) -> tuple[str, str | None]:
    """
    Return the SHA this run builds, and the one that was the branch's head before, when that is known.

    The choice is kept in the task's state store: a retry or a clear builds the same commit, also when the
    branch has moved meanwhile.

    :param wanted: the run's ``revision`` param, rendered; empty to choose by event or branch
    :raises AirflowFailException: ``wanted`` is not a full SHA
    """
    wanted = (wanted or "").strip()
    if wanted and not _is_sha(wanted):
        raise AirflowFailException(
            f"revision {wanted[:80]!r} is not a full commit SHA (40 hexadecimal digits); "
            "abbreviations and branch names are refused, since they can change their meaning"
        )
    if wanted:
        return wanted, None
    state = context.get("task_state_store")
    kept: Any = state.get(_STATE_KEY) if state is not None else None
    if kept:
        return kept["sha"], kept["previous"]
    sha, previous = _from_events(context) or (source.head(service.source.branch), None)
    if state is not None:
        state.set(_STATE_KEY, {"sha": sha, "previous": previous})
    return sha, previous


def _from_events(context: Context) -> tuple[str, str | None] | None:
    """Read the newest pushed commit, and what was the head before the oldest of these pushes."""
    payloads: list[dict[str, Any]] = []
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in sorted(events, key=lambda item: item.timestamp):
            payload = (event.extra or {}).get("payload")
            if isinstance(payload, dict) and _is_sha(payload.get("revision")):
                payloads.append(payload)
    if not payloads:
        return None
    previous = payloads[0].get("previous")
    return payloads[-1]["revision"], previous if _is_sha(previous) else None


def _is_sha(value: object) -> bool:
    # Not match(), for which a line end may follow the `$`.
    return isinstance(value, str) and re.fullmatch(SHA_PATTERN, value) is not None
