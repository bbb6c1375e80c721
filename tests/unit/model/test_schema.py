"""The schema editors use says what the loader says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_cd.model.schema import FILE, services_schema, written

ROOT = Path(__file__).parents[3]
GOOD = yaml.safe_load((ROOT / "dags" / "services.yaml").read_text())


def check(content: Any) -> None:
    jsonschema.Draft202012Validator(services_schema()).validate(content)


def test_the_shipped_file_is_up_to_date() -> None:
    assert FILE.read_text() == written(), "run: python -m airflow_cd.model.schema"


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
