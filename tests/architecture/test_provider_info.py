"""What Airflow reads about the provider is complete and true."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files

import jsonschema
import pytest

from airflow_cd.get_provider_info import get_provider_info

INFO = get_provider_info()


def test_it_follows_airflows_schema() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


@pytest.mark.parametrize("kind", ["operators", "sensors", "hooks", "triggers"])
def test_every_listed_module_exists_and_none_is_forgotten(kind: str) -> None:
    listed = {module for entry in INFO[kind] for module in entry["python-modules"]}
    for module in listed:
        import_module(module)
    folder = files("airflow_cd") / kind
    bases = {
        "operators": "BaseOperator",
        "sensors": "BaseOperator",
        "hooks": "BaseHook",
        "triggers": "BaseTrigger",
    }
    for file in folder.iterdir():
        if not file.name.endswith(".py") or file.name == "__init__.py":
            continue
        module = import_module(f"airflow_cd.{kind}.{file.name.removesuffix('.py')}")
        defines = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, type)
            and thing.__module__ == module.__name__
            and bases[kind] in {base.__name__ for base in thing.__mro__}
        ]
        assert not defines or module.__name__ in listed, f"{module.__name__} is not in the provider info"


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
