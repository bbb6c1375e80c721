"""The history of an environment: its changes, and the four DORA metrics (https://dora.dev/guides/dora-metrics/)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from airflow_cd.model.base import Frozen
from airflow_cd.model.release import ReleaseName
from airflow_cd.model.train import TRAIN_PREFIX


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


def changes_of(events: Iterable[Mapping[str, Any]]) -> list[Change]:
    """
    Return the changes that these asset events carry, in their order, without duplicates.

    A user who can create asset events can create any, and so can the task of any DAG, also in advance. A
    change counts when the run that made it, by its own account, is the one that Airflow says emitted it, and
    when that is a run of the service's DAGs or of a train. What is no change is left out.

    :param events: as Airflow's REST API has them
    """
    found: dict[tuple[str, str, int], Change] = {}
    for event in events:
        try:
            change = Change.model_validate(event.get("extra"))
        except ValidationError:
            continue
        if change.actor == _source_of(event) and _may_change(str(event["source_dag_id"]), change.service):
            found.setdefault((change.service, change.environment, change.generation), change)
    return list(found.values())


def _source_of(event: Mapping[str, Any]) -> str:
    return f"{event.get('source_dag_id')}/{event.get('source_run_id')}"


def _may_change(dag_id: str, service: str) -> bool:
    own = (f"{service}_delivery", f"{service}_deployment", f"{service}_rollback")
    return dag_id in own or dag_id.startswith(TRAIN_PREFIX)


_DAY = 86400.0


class Measures(Frozen):
    """
    What was measured over a period.

    :param days: length of the period
    :param deployments: how many there were
    :param failed: how many of them were rolled back, at whatever time since
    :param deployment_frequency: deployments a day
    :param lead_time: median seconds from the commit that was released to its running in production; ``None``
        without a deployment
    :param change_failure_rate: failed deployments among all, 0 to 1; ``None`` without a deployment
    :param time_to_restore: median seconds from a failed deployment to its having been undone; ``None`` where
        none failed
    """

    days: float
    deployments: int
    failed: int
    deployment_frequency: float
    lead_time: float | None
    change_failure_rate: float | None
    time_to_restore: float | None


class _Deployment(NamedTuple):
    change: Change
    restored_at: datetime | None


def measure(changes: Iterable[Change], since: datetime, until: datetime) -> Measures:
    """
    Return the measures of the deployments from ``since`` to before ``until``.

    :param changes: the history of production, of one service or of many, in any order; also what came after
        ``until``, which tells what failed
    """
    counted = [one for one in _deployments(changes) if since <= one.change.at < until]
    lead_times = [one.change.lead_time for one in counted if one.change.lead_time is not None]
    restores = [(one.restored_at - one.change.at).total_seconds() for one in counted if one.restored_at]
    days = (until - since).total_seconds() / _DAY
    return Measures(
        days=days,
        deployments=len(counted),
        failed=len(restores),
        deployment_frequency=len(counted) / days,
        lead_time=_median(lead_times),
        change_failure_rate=len(restores) / len(counted) if counted else None,
        time_to_restore=_median(restores),
    )


def _deployments(changes: Iterable[Change]) -> list[_Deployment]:
    """Return every deployment, each with the rollback that undid it."""
    found: list[_Deployment] = []
    newest: dict[
        tuple[str, str], list[int]
    ] = {}  # the deployments of an environment, by their place in found
    for change in sorted(changes, key=lambda one: one.at):
        places = newest.setdefault((change.service, change.environment), [])
        if change.kind == "deployed":
            places.append(len(found))
            found.append(_Deployment(change, None))
            continue
        undone = change.replaced.digest if change.replaced else None
        for place in reversed(places):
            one = found[place]
            if one.change.release.digest == undone:
                found[place] = one._replace(restored_at=one.restored_at or change.at)
                break
    return found


def _median(seconds: Sequence[float]) -> float | None:
    return median(seconds) if seconds else None
