"""The API clients that targets can get from Airflow connections, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_cd.hooks.docker import docker_client
from airflow_cd.hooks.kubernetes import kubernetes_client, kubernetes_watch_client

CLIENTS: Mapping[str, Callable[[str | None, str | None], Any]] = {
    "docker": docker_client,
    "kubernetes": kubernetes_client,
    "kubernetes_watch": kubernetes_watch_client,
}
