"""
The departures of trains: one asset per train, one asset event per departure.

DAGs may be scheduled on these assets, as on any other: ``schedule=[Asset("cd/train/nightly")]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, AssetAlias

if TYPE_CHECKING:
    from airflow_cd.model.manifest import TrainManifest
    from airflow_cd.model.train import Train

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
