"""Which targets there are; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.targets.base import Access, Target

TARGETS = {
    "local": "airflow_cd.targets.local.target:LocalTarget",
    "docker": "airflow_cd.targets.docker.target:DockerTarget",
    "kubernetes": "airflow_cd.targets.kubernetes.target:KubernetesTarget",
}


def open_target(service: str, environment: Environment, access: Access) -> Target:
    """Return where a service runs in an environment; nothing is asked of it yet."""
    module, _, attribute = TARGETS[environment.target.kind].partition(":")
    adapter = getattr(import_module(module), attribute)
    target: Target = adapter(service, environment, access)
    return target
