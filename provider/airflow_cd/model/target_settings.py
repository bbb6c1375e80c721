"""What a kind of target declares about itself, and how the kinds that other packages add are found."""

from __future__ import annotations

from enum import Enum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.base import Frozen

# An entry point of this group is a kind of target: its name is the key under `target:` in a services file,
# its value a subclass of TargetSettings.
GROUP = "airflow_cd.targets"


class Capability(str, Enum):
    """What a kind of target can do beyond deploying and rolling back."""

    STRATEGIES = "strategies"  # give a candidate a share of the requests: a ProgressiveTarget
    PREVIEW = "preview"  # show what a deployment would change: a DeclarativeTarget
    DRIFT = "drift"  # find and restore what differs from the running release: a DeclarativeTarget


class TargetSettings(Frozen):
    """
    The keys of one kind of target in a services file, and what that kind can do.

    A subclass is imported while DAG files are parsed: it must not import a vendor library. Those belong in
    the module that ``adapter`` names, which is imported by the task that uses the target.

    :cvar adapter: ``module:class`` of the :class:`airflow_cd.targets.base.Target`, called with the service's
        name, the environment and the access
    :cvar takes: what releases must be packaged as
    :cvar capabilities: what the adapter can do beyond :class:`airflow_cd.targets.base.Target`
    :cvar address_key: the key to change where two environments have the same ``address``
    """

    adapter: ClassVar[str] = ""
    takes: ClassVar[Literal["archive", "image"]] = "archive"
    capabilities: ClassVar[frozenset[Capability]] = frozenset()
    address_key: ClassVar[str] = "port"

    @property
    def address(self) -> tuple[str, ...] | None:
        """
        Return what no two environments can share, ``None`` where they can share everything.

        A port is ``(machine, host, port)``, the machine empty for the one Airflow's workers run on.
        """
        return None

    @property
    def remote(self) -> tuple[str, ...]:
        """
        Return what targets are asked through: an engine, a cluster, the API of an account.

        In the triggerer, those with the same one share a few threads. One that does not answer keeps its own
        busy, and nobody else's.
        """
        return (type(self).__name__,)

    @property
    def manifests_path(self) -> str | None:
        """Return the path in the source of the manifests that this target deploys, where it deploys some."""
        return None

    @property
    def object_settings(self) -> dict[str, Any] | None:
        """Return the settings that determine the deployed objects: a change of them is another release."""
        return None

    @property
    def described(self) -> str:
        """Return where the service answers, for people."""
        return type(self).__name__


def installed_kinds() -> list[str]:
    """Return the names of the kinds that installed packages add."""
    return sorted(_declared())


@cache
def settings_class(kind: str) -> type[TargetSettings]:
    """
    Return the settings of a kind that an installed package adds.

    :raises DefinitionError: no package adds it, two do, or what the package declares cannot be used
    """
    found = _declared().get(kind, ())
    if not found:
        raise DefinitionError(
            f"there is no target {kind!r}", remedy=f"Install the package that adds it to the group {GROUP}"
        )
    if len(found) > 1:
        names = " and ".join(sorted(_package(one) for one in found))
        raise DefinitionError(
            f"the target {kind!r} is declared by {names}", remedy="Uninstall all of them but one"
        )
    return _loaded(found[0])


@cache
def _declared() -> dict[str, tuple[EntryPoint, ...]]:
    # This reads the metadata of every installed package: some milliseconds, for files that need it only.
    declared: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=GROUP):
        declared[entry.name] = (*declared.get(entry.name, ()), entry)
    return declared


def _loaded(entry: EntryPoint) -> type[TargetSettings]:
    where = f"the target {entry.name!r} of the package {_package(entry)}"
    try:
        found = entry.load()
    except Exception as error:
        raise DefinitionError(
            f"{where} cannot be imported from {entry.value}: {type(error).__name__}: {error}",
            remedy=f"Install {_package(entry)} and what it depends on again, or remove it",
        ) from error
    if not (isinstance(found, type) and issubclass(found, TargetSettings) and ":" in found.adapter):
        raise DefinitionError(
            f"{where} is declared as {entry.value}, which is no TargetSettings class with an `adapter`",
            remedy=f"Report it to the authors of {_package(entry)}: the entry point in {GROUP} is wrong",
        )
    return found


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "(unknown)"
