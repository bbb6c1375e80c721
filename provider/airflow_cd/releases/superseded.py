"""Finds releases that wait for approval although a newer one reached the environment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_cd.releases.adapters import open_source
from airflow_cd.releases.run import name_of

if TYPE_CHECKING:
    from airflow_cd.model.release import Release, ReleaseRef
    from airflow_cd.model.service import Service

log = logging.getLogger(__name__)

_WAITING = "awaiting_input"


def superseded_alias(service: str, environment: str) -> AssetAlias:
    """Return the outlet of the task that says which waiting releases are superseded."""
    return AssetAlias(name=f"cd/{service}/{environment}/superseded")


def report_superseded(
    context: Any,
    service: Service,
    environment: str,
    release: Release,
    *,
    approval_task_id: str,
    release_task_id: str,
) -> None:
    """
    Name the runs of this DAG that wait for the approval of an older release than ``release``.

    An error here does not affect ``release``: a waiting release is checked again when a person answers.

    :param release: what the environment runs, and is healthy
    :param approval_task_id: the task that waits
    :param release_task_id: the task whose XCom is the release that is asked about
    """
    from airflow_cd.model.superseded import SUPERSEDED, Superseded

    try:
        older = _older(context, service, release, approval_task_id, release_task_id)
    except Exception as error:
        log.warning("Cannot tell which waiting releases are superseded: %s", error)
        return
    if not older:
        return
    for run_id, version in older.items():
        log.info("%s of %s is superseded", version, run_id)
    asset = Asset(name=f"cd/{service.name}/{environment}/superseded")
    newer = f"{release.version} ({release.revision.short})"
    reason = f"is superseded: {environment} runs {newer}, which is newer"
    told = Superseded(task_id=approval_task_id, runs=older, reason=reason).model_dump(mode="json")
    context["outlet_events"][superseded_alias(service.name, environment)].add(asset, extra={SUPERSEDED: told})


def _older(
    context: Any, service: Service, release: Release, approval_task_id: str, release_task_id: str
) -> dict[str, str]:
    """Return run id -> version of what waits and is older."""
    waiting = _waiting(context, approval_task_id, release_task_id)
    if not waiting:
        return {}
    with open_source(service) as source:
        revisions = {ref.revision for ref in waiting.values()}
        older = source.ancestors(release.revision.sha, among=revisions)
    return {run_id: ref.version for run_id, ref in waiting.items() if ref.revision in older}


def _waiting(context: Any, approval_task_id: str, release_task_id: str) -> dict[str, ReleaseRef]:
    """Return run id -> release of the runs that wait."""
    from airflow_cd.model.release import ReleaseRef

    ti, dag_id = context["ti"], context["dag_run"].dag_id
    # Nearly always nobody waits; to know that costs one small request.
    if not ti.get_ti_count(dag_id=dag_id, task_ids=[approval_task_id], states=[_WAITING]):
        return {}
    states = ti.get_task_states(dag_id=dag_id, task_ids=[approval_task_id])
    found = {}
    for run_id, tasks in states.items():
        if name_of(tasks.get(approval_task_id)) != _WAITING:
            continue
        if pulled := ti.xcom_pull(task_ids=release_task_id, run_id=run_id):
            found[run_id] = ReleaseRef.model_validate(pulled)
    return found
