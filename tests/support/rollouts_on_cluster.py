"""Rollouts on a real cluster, gone through step by step, as whom one likes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from harness.waiting import wait_until
from tests.support.cluster import deployer, kubeconfig_of
from tests.support.places import KubernetesPlace

from airflow_cd.model.release import Release
from airflow_cd.model.rollout import Phase, RolloutAnswer
from airflow_cd.targets.base import Access, DeclarativeTarget
from airflow_cd.targets.kubernetes.app import objects_of_app
from airflow_cd.targets.record import Record
from airflow_cd.targets.registry import open_target


def target_of(place: KubernetesPlace) -> DeclarativeTarget:
    assert isinstance(place.target, DeclarativeTarget)
    return place.target


def begun(place: KubernetesPlace, release: Release) -> Record:
    record = place.target.record()
    over = record.rollout.token if record.rollout else None
    target = target_of(place)
    return target.begin(release, place.store, expected=record.generation, over=over, actor="test")


def until(place: KubernetesPlace, phase: Phase, answer: RolloutAnswer | None = None) -> Record:
    """Advance a rollout until it is in this phase, or over."""

    def advanced() -> Record | None:
        record = place.target.record()
        if record.rollout is None or record.rollout.progress.phase is phase:
            return record
        target_of(place).advance(record.rollout.token, answer=answer)
        return None

    return wait_until(advanced, f"the rollout is {phase.value}", timeout=90)


def until_served(place: KubernetesPlace, text: str) -> None:
    """Wait until the service answers this: nodes hear of a Service that changed a moment later."""

    def is_served() -> bool:
        try:
            return place.served() == text
        except httpx.HTTPError:
            return False

    wait_until(is_served, f"{text} is served", timeout=15)


def live(client: Any, place: KubernetesPlace, kind: str, name: str) -> Any:
    from kubernetes import client as kubernetes
    from kubernetes.client import ApiException

    api = kubernetes.AppsV1Api(client) if kind == "deployment" else kubernetes.CoreV1Api(client)
    try:
        return getattr(api, f"read_namespaced_{kind}")(name, place.namespace)
    except ApiException as error:
        assert error.status == 404
        return None


def packaged(place: KubernetesPlace, text: str, *more: dict[str, Any], replicas: int = 1) -> Release:
    """Return a release with manifests: what ``app`` would be, and more objects."""
    from airflow_cd.model.kubernetes import AppSettings

    release = place.release(text)
    app = AppSettings.model_validate({"ready": "/", "stop_after": "1s", "grace": "1s", "replicas": replicas})
    objects = objects_of_app(app, service=place.service, environment="production", release=release)
    digest = place.store.put_bytes(json.dumps([*objects, *more], sort_keys=True).encode())
    return release.model_copy(update={"manifests": {"production": digest}})


def as_deployer(
    place: KubernetesPlace, client: Any, rules: list[dict[str, Any]], folder: Path
) -> KubernetesPlace:
    """Let the place use the cluster as a user who may do this, and nothing else."""
    from kubernetes.config import new_client_from_config_dict

    token = deployer(client, place.namespace, rules)
    config = kubeconfig_of(client, {"token": token})
    access = place.access()
    mine = Access(
        access.data_dir,
        access.unpack,
        access.secret,
        {**access.clients, "kubernetes": lambda conn_id, context: new_client_from_config_dict(config)},
    )
    place.target = open_target(place.service, place.environment, mine)
    return place
