"""Which kinds of targets, runners and artifact stores there are, and which of them this version has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from airflow_cd import __version__
from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.services_file.errors import closest
from airflow_cd.model.target_settings import GROUP, installed_kinds, settings_class


class Kind(NamedTuple):
    """
    One kind of adapter.

    :param available: whether this version has it
    :param extra: the extra of this package it needs
    :param module: the module whose presence shows that the extra is installed
    """

    available: bool
    extra: str | None = None
    module: str | None = None


_DOCKER = Kind(True, "docker", "docker")
_KUBERNETES = Kind(True, "kubernetes", "kubernetes")
_AWS = Kind(False, "aws", "boto3")

KINDS: dict[str, dict[str, Kind]] = {
    "target": {
        "local": Kind(True),
        "docker": _DOCKER,
        "kubernetes": _KUBERNETES,
        "ecs": _AWS,
        "lambda": _AWS,
    },
    "runner": {
        "subprocess": Kind(True),
        "docker": _DOCKER,
        "kubernetes": _KUBERNETES,
    },
    "artifact store": {"file": Kind(True), "s3": _AWS, "oci": Kind(False)},
}


def check_kind(family: str, name: str) -> None:
    """
    Make sure that this kind can be used here.

    :param family: ``target``, ``runner`` or ``artifact store``
    :raises DefinitionError: there is no such kind, this version has it not, its extra is not installed, or
        what a package adds by this name cannot be used
    """
    kinds = KINDS[family]
    kind = kinds.get(name)
    own = [known for known, one in kinds.items() if one.available]
    if family == "target" and name not in own:
        added = installed_kinds()
        if name in added:
            settings_class(name)
            return
        own += added
    usable = ", ".join(sorted(own))
    if kind is None:
        remedy = f"{closest(name, own)}Use one of: {usable}"
        if family == "target":
            remedy += f"; or install the package that adds it (entry point group {GROUP})"
        raise DefinitionError(f"there is no {family} {name!r}", remedy=remedy)
    missing = kind.extra is not None and kind.module is not None and find_spec(kind.module) is None
    remedies = []
    if missing:
        remedies.append(f"Install it: pip install 'airflow-provider-cd[{kind.extra}]'")
    if not kind.available:
        remedies.append(f"Version {__version__} has no {family} {name!r} yet; it has: {usable}")
    if missing:
        problem = f"the {family} {name!r} needs the extra {kind.extra!r}, which is not installed"
        raise DefinitionError(problem, remedy=". ".join(remedies))
    if remedies:
        raise DefinitionError(f"the {family} {name!r} is not available", remedy=remedies[0])


def kinds_named(raw: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield every adapter that the service names: its place, its family and its name."""
    runner = raw.get("runner")
    if isinstance(runner, (str, dict)):
        yield ("runner",), "runner", runner if isinstance(runner, str) else next(iter(runner), "")
    artifacts = raw.get("artifacts")
    if isinstance(artifacts, str):
        yield ("artifacts",), "artifact store", artifacts.partition("://")[0]
    environments = raw.get("environments")
    for n, environment in enumerate(environments if isinstance(environments, list) else ()):
        target = environment.get("target") if isinstance(environment, dict) else None
        for name in target if isinstance(target, dict) else ():
            yield ("environments", n, "target", str(name)), "target", str(name)
