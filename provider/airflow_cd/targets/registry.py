"""
Which targets there are; each is imported when it is first used.

These are the ones of this package. Others declare settings in the entry point group ``airflow_cd.targets``,
which name their adapter; see :mod:`airflow_cd.model.target_settings`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import TargetError

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.target import TargetChoice
    from airflow_cd.targets.base import Access, Target

TARGETS = {
    "local": "airflow_cd.targets.local.target:LocalTarget",
    "docker": "airflow_cd.targets.docker.target:DockerTarget",
    "kubernetes": "airflow_cd.targets.kubernetes.target:KubernetesTarget",
}


def open_target(service: str, environment: Environment, access: Access) -> Target:
    """
    Return where a service runs in an environment; nothing is asked of it yet.

    :raises TargetError: the adapter that a package declares for its kind of target cannot be imported
    """
    choice = environment.target
    own = TARGETS.get(choice.kind)
    adapter = _imported(own) if own else _adapter_of_package(choice)
    target: Target = adapter(service, environment, access)
    return target


def _adapter_of_package(choice: TargetChoice) -> Any:
    path = choice.settings.adapter
    try:
        return _imported(path)
    except (ImportError, AttributeError) as error:
        raise TargetError(
            f"the target {choice.kind!r} cannot be imported from {path}: {type(error).__name__}: {error}; "
            "install its package and what it depends on on this worker"
        ) from error


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
