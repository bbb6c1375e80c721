"""Which runners there are; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_cd.runners.base import Runner

RUNNERS = {
    "subprocess": "airflow_cd.runners.subprocess:SubprocessRunner",
    "build_users": "airflow_cd.runners.build_users:BuildUsersRunner",
    "docker": "airflow_cd.runners.docker:DockerRunner",
    "kubernetes": "airflow_cd.runners.kubernetes.runner:KubernetesRunner",
}


def open_runner(name: str, *settings: Any) -> Runner:
    """
    Return a runner of this kind.

    :param settings: what its class takes
    :raises KeyError: there is none, which loading has ruled out
    """
    module, _, attribute = RUNNERS[name].partition(":")
    runner: Runner = getattr(import_module(module), attribute)(*settings)
    return runner
