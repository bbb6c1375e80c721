"""
The history: one asset per service and environment, one asset event per change of what runs there.

DAGs may be scheduled on these assets, as on any other: ``schedule=[Asset("cd/hello/production")]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_cd.hooks.releases import actor_of

if TYPE_CHECKING:
    from airflow_cd.model.change import Change
    from airflow_cd.targets.record import Record


def environment_asset(service: str, environment: str) -> Asset:
    """Return the asset that stands for what the service runs in this environment."""
    return Asset(name=f"cd/{service}/{environment}")


def changes_alias(service: str, environment: str) -> AssetAlias:
    """
    Return the outlet of the tasks that may change the environment.

    An asset as outlet would get an event whenever its task succeeds, an alias only when there is a change.
    """
    return AssetAlias(name=f"cd/{service}/{environment}/changes")


def change_of(context: Any, service: str, environment: str, record: Record) -> Change | None:
    """
    Return what this run did to the environment, or ``None`` when it did nothing.

    A retry after a killed worker finds its run's own work done, and with it the change nobody was told of.

    :param record: what the task leaves there
    """
    from airflow_cd.model.change import Change
    from airflow_cd.model.release import ReleaseName

    current = record.current
    if current is None or current.actor != actor_of(context):
        return None
    rolled_back = current.rolled_back_from is not None
    lead_time = (current.deployed_at - current.release.revision.committed_at).total_seconds()
    return Change(
        service=service,
        environment=environment,
        kind="rolled back" if rolled_back else "deployed",
        generation=record.generation,
        release=ReleaseName.of(current.release),
        replaced=current.replaced,
        actor=current.actor,
        user=context["dag_run"].triggering_user_name,
        approval=current.approval,
        reason=current.reason,
        at=current.deployed_at,
        lead_time=None if rolled_back else lead_time,
    )


def emit(context: Any, change: Change | None) -> None:
    """Add the change to the history. Airflow stores it when, and only if, the task succeeds."""
    if change is None:
        return
    asset = environment_asset(change.service, change.environment)
    events = context["outlet_events"][changes_alias(change.service, change.environment)]
    events.add(asset, extra=change.model_dump(mode="json"))
