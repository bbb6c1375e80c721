"""The history: one asset per environment or train, one asset event per change or departure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

from airflow_cd.releases.run import actor_of

if TYPE_CHECKING:
    from airflow_cd.model.history import Change
    from airflow_cd.model.train import Train, TrainManifest
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

    A retry after a killed worker finds its run's own work done, and with it the change that was not reported.

    :param record: what the task leaves there
    """
    from airflow_cd.model.history import Change
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


# What an event has under this key becomes the note of its run: see airflow_cd.plugin.run_notes.
RUN_NOTE = "cd_run_note"


def departures_alias(train: str) -> AssetAlias:
    """Return the outlet of the task that lets the train depart."""
    return AssetAlias(name=f"cd/train/{train}/departures")


def emit_departure(context: Any, train: Train, manifest: TrainManifest) -> None:
    """Add the departure to the history, with the manifest as the run's note; none with nobody on board."""
    if not manifest.passengers:
        return
    extra = {**manifest.summary(), RUN_NOTE: manifest.note()}
    events = context["outlet_events"][departures_alias(train.name)]
    events.add(Asset(name=f"cd/train/{train.name}"), extra=extra)
