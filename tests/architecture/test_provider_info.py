"""What Airflow reads about the provider is complete and true."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from pkgutil import walk_packages

import jsonschema
import pytest

import airflow_cd
from airflow_cd.get_provider_info import get_provider_info

INFO = get_provider_info()


def test_it_follows_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


BASES = {
    "operators": "BaseOperator",
    "sensors": "BaseOperator",
    "hooks": "BaseHook",
    "triggers": "BaseTrigger",
}


def listed(kind: str) -> set[str]:
    return {module for entry in INFO[kind] for module in entry["python-modules"]}


@pytest.mark.parametrize("kind", sorted(BASES))
def test_every_listed_module_exists(kind: str) -> None:
    for module in listed(kind):
        import_module(module)


def test_no_module_is_forgotten() -> None:
    everything = set[str]().union(*(listed(kind) for kind in BASES))
    for found in walk_packages(airflow_cd.__path__, "airflow_cd."):
        # The suites of this package need what only developers install; the other is a program of its own.
        if found.name.startswith(("airflow_cd.testing.", "airflow_cd.targets.local.launch")):
            continue
        module = import_module(found.name)
        defines = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, type)
            and thing.__module__ == module.__name__
            and {base.__name__ for base in thing.__mro__} & set(BASES.values())
        ]
        assert not defines or module.__name__ in everything, f"{module.__name__} is not in the provider info"


def test_every_named_object_can_be_imported() -> None:
    names = [
        *INFO["extra-links"],
        *INFO["cli"],
        *(connection["hook-class-name"] for connection in INFO["connection-types"]),
    ]
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


@pytest.mark.parametrize("group", ["apache_airflow_provider", "airflow.plugins"])
def test_entry_points_resolve(group: str) -> None:
    ours = [entry for entry in entry_points(group=group) if entry.value.startswith("airflow_cd.")]
    assert len(ours) == 1
    assert ours[0].load()


def test_the_plugin_adds_listeners_and_nothing_else() -> None:
    from airflow_cd.plugin import run_notes, superseding
    from airflow_cd.plugin.plugin import CdPlugin

    assert CdPlugin.listeners == [superseding, run_notes]
    for hook in ("fastapi_apps", "external_views", "react_apps", "macros"):
        assert not getattr(CdPlugin, hook)
