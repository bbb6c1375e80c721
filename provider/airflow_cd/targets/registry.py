"""Which targets there are; each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cd.model.service import Environment
    from airflow_cd.targets.base import Target

TARGETS = {"local": "airflow_cd.targets.local.target:LocalTarget"}


def open_target(
    service: str, environment: Environment, *, data_dir: Path, unpack: Callable[[Path, Path], None]
) -> Target:
    """
    Return where a service runs in an environment.

    :param data_dir: folder for what targets keep on this machine
    :param unpack: writes a release's archive (first argument) to a new folder (second argument)
    """
    module, _, attribute = TARGETS[environment.target.kind].partition(":")
    adapter = getattr(import_module(module), attribute)
    target: Target = adapter(service, environment, data_dir=data_dir, unpack=unpack)
    return target
