"""Loads modules that tasks need before the tasks start."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pkgutil import walk_packages

import airflow_cd
from airflow_cd.model.base import Frozen

# The command line and the pages are no part of a task.
_PACKAGES = (
    *("clusters", "dag_factories", "hooks", "kubernetes", "links", "metrics", "model", "operators"),
    *("packaging", "processes", "releases", "runners", "sensors", "sources", "stores", "targets"),
    *("trains", "triggers"),
)
# What functions of these packages import when they are called.
_LIBRARIES = (
    "anyio._backends._asyncio",  # by httpx, with its first request
    "httpx",
    "jinja2.ext",
    "defusedxml.ElementTree",
    "psutil",
    "supervisor.xmlrpc",
)
# By extra. Each takes from tenths of a second to seconds, in every process of Airflow that starts.
_VENDORS = {
    "docker": ("docker",),
    "kubernetes": ("kubernetes.client", "kubernetes.config", "kubernetes.watch"),
}


def preload(*extras: str) -> None:
    """
    Load what the tasks of pipelines import while they run.

    :param extras: ``docker``, ``kubernetes``: what these need besides. Name those that most pipelines use.
    :raises ValueError: there is no such extra
    """
    if unknown := [extra for extra in extras if extra not in _VENDORS]:
        raise ValueError(f"invalid extra {unknown[0]!r}; expected one of {', '.join(_VENDORS)}")
    found = walk_packages(airflow_cd.__path__, f"{airflow_cd.__name__}.", onerror=lambda name: None)
    own = [module.name for module in found if module.name.split(".")[1] in _PACKAGES]
    vendors = [library for extra in extras for library in _VENDORS[extra]]
    for name in (*own, *_LIBRARIES, *vendors):
        # The task that needs a missing module reports it, and must not keep Airflow from starting.
        with suppress(ImportError):
            import_module(name)
    _build(Frozen)


def _build(model: type[Frozen]) -> None:
    """Make the validators of all models, which are made when they are first used otherwise."""
    for one in model.__subclasses__():
        one.model_rebuild(raise_errors=False)
        _build(one)
