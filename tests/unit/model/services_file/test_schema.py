"""The schema editors use says what the loader says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_cd.model.services_file.schema import FILE, services_schema, written

ROOT = Path(__file__).parents[4]
GOOD = yaml.safe_load((ROOT / "dags" / "services.yaml").read_text())


def check(content: Any) -> None:
    jsonschema.Draft202012Validator(services_schema()).validate(content)


def test_the_shipped_file_is_up_to_date() -> None:
    assert FILE.read_text() == written(), "run: python -m airflow_cd.model.services_file.schema"


def test_the_example_is_valid() -> None:
    check(GOOD)


def test_defaults_may_hold_what_services_leave_out() -> None:
    service = {key: value for key, value in GOOD["services"][0].items() if key not in ("source", "pipeline")}
    service["source"] = {"repository": "/srv/git/a.git"}
    check({"defaults": {"pipeline": "delivery", "source": {"branch": "main"}}, "services": [service]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"servces": []},
        {"services": [{"name": "Hello"}]},
        {"services": [{"name": "a", "buld": []}]},
        {"services": [{"name": "a", "build": ["make all"]}]},
        {"services": [{"name": "a", "build": [["sleep", 5]]}]},
        {"services": [{"name": "a", "pipeline": "delivry"}]},
        {"services": [{"name": "a", "environments": []}]},
        {"trains": [{"name": "nightly"}]},
    ],
)
def test_what_the_loader_refuses_is_marked(wrong: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


def keys() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield each key of a services file: its place, what the schema says, and whether it is required."""
    schema = services_schema()
    definitions = {
        name: definition["anyOf"][0] if "anyOf" in definition else definition
        for name, definition in schema["$defs"].items()
    }
    for name, definition in {"file": schema, **definitions}.items():
        for key, written_key in definition["properties"].items():
            yield f"{name}.{key}", written_key, key in definition.get("required", ())


KEYS = list(keys())


@pytest.mark.parametrize(("key", "explained", "required"), KEYS, ids=[key for key, _, _ in KEYS])
def test_editors_show_what_each_key_means(key: str, explained: dict[str, Any], required: bool) -> None:
    assert explained.get("description"), "add a `:param` line to the docstring of the model"
    required = required or explained["description"].endswith("required, here or in `defaults`")
    assert required or "default" in explained
    assert explained.get("examples"), (
        "add an example to the table in airflow_cd/model/services_file/schema.py"
    )


def test_examples_and_defaults_are_valid() -> None:
    definitions = services_schema()["$defs"]
    for key, explained, _ in KEYS:
        one = jsonschema.Draft202012Validator({**explained, "$defs": definitions})
        for value in explained["examples"]:
            assert not list(one.iter_errors(value)), f"example of {key}"
        if explained.get("default") is not None:
            assert not list(one.iter_errors(explained["default"])), f"default of {key}"


@pytest.mark.parametrize(
    "environment",
    [{"strategy": "rolling", "drift": "heal"}, {"strategy": {"blue_green": {"analysis": "error-rate"}}}],
)
def test_short_forms_are_valid(environment: dict[str, Any]) -> None:
    place = {"name": "production", "target": {"local": {"command": ["a"], "port": 1}}, **environment}
    check({"services": [{"name": "a", "environments": [place]}]})


def test_parsing_a_dag_file_does_not_make_the_schema() -> None:
    code = (
        "import sys, airflow_cd.dag_factories; print('airflow_cd.model.services_file.schema' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
