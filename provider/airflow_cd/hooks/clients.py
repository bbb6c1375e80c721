"""The API clients that targets can get from Airflow connections, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from airflow_cd.hooks.docker import docker_client
from airflow_cd.hooks.kubernetes import kubernetes_client, kubernetes_watch_client

CLIENTS: Mapping[str, Callable[[str | None, str | None], Any]] = {
    "docker": docker_client,
    "kubernetes": kubernetes_client,
    "kubernetes_watch": kubernetes_watch_client,
}
# Of the triggerer's watches, which only look: an answer takes milliseconds, if it comes.
LOOKING_CLIENTS: Mapping[str, Callable[[str | None, str | None], Any]] = {
    **CLIENTS,
    "docker": partial(docker_client, answer_seconds=10),
}
