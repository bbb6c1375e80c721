"""Which runners there are; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_cd.runners.base import Runner

RUNNERS = {"subprocess": "airflow_cd.runners.subprocess:SubprocessRunner"}


def open_runner(name: str) -> Runner:
    """Return a runner of this kind. :raises KeyError: there is none, which loading has ruled out"""
    module, _, attribute = RUNNERS[name].partition(":")
    runner: Runner = getattr(import_module(module), attribute)()
    return runner
