"""What happened to an environment: the entry of the history that an asset event carries."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from airflow_cd.model.base import Frozen
from airflow_cd.model.release import ReleaseName


class Change(Frozen):
    """
    One change of what an environment runs.

    :param kind: ``deployed``, or ``rolled back``
    :param generation: of the target's record after the change; it tells a repeated event from a new one
    :param release: what runs since then
    :param replaced: what ran before; ``None`` where nothing did
    :param actor: the DAG run that did it, as ``<dag_id>/<run_id>``
    :param user: the Airflow user who started that run by hand
    :param approval: ``approved by bob``, ``override``, ``window override by carol: <reason>``, or two of
        them; ``None`` where nobody is asked
    :param reason: why it was rolled back
    :param at: when requests went to the release
    :param lead_time: seconds from the commit to then; ``None`` for a rollback, which delivers no commit
    """

    service: str
    environment: str
    kind: Literal["deployed", "rolled back"]
    generation: int
    release: ReleaseName
    replaced: ReleaseName | None = None
    actor: str
    user: str | None = None
    approval: str | None = None
    reason: str | None = None
    at: datetime
    lead_time: float | None = None


def changes_of(extras: Iterable[Any]) -> list[Change]:
    """
    Return the changes that these asset events carry, in their order, without those told twice.

    Whoever may create asset events may create any; what is no change is left out.
    """
    found: dict[tuple[str, str, int], Change] = {}
    for extra in extras:
        try:
            change = Change.model_validate(extra)
        except ValidationError:
            continue
        found.setdefault((change.service, change.environment, change.generation), change)
    return list(found.values())
