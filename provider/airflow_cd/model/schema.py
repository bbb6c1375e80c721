"""
The JSON schema of services files, for editors.

``python -m airflow_cd.model.schema`` writes it anew; it ships as ``airflow_cd/model/services.schema.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from airflow_cd.model.cluster import Cluster
from airflow_cd.model.freeze import Freeze
from airflow_cd.model.service import Service
from airflow_cd.model.train import Train

FILE = Path(__file__).with_name("services.schema.json")
_REFERENCE = "#/$defs/{model}"
# What `defaults` may give need not be written in every service.
_FROM_DEFAULTS = ("Service", "Source")


def services_schema() -> dict[str, Any]:
    """Return the schema of a whole services file (JSON Schema 2020-12)."""
    _, generated = models_json_schema(
        [(model, "validation") for model in (Service, Train, Freeze, Cluster)], ref_template=_REFERENCE
    )
    definitions: dict[str, Any] = generated["$defs"]
    for name in _FROM_DEFAULTS:
        definitions[name].pop("required", None)
    definitions["Build"] = _with_short_form(definitions["Build"])
    definitions["Service"]["properties"]["runner"] = {
        "anyOf": [{"const": "subprocess"}, {"$ref": _REFERENCE.format(model="RunnerChoice")}]
    }
    definitions["HealthCheck"]["oneOf"] = [{"required": [kind]} for kind in ("http", "tcp", "command")]
    definitions["Window"]["oneOf"] = [{"required": [kind]} for kind in ("allow", "deny")]
    defaults = {**definitions["Service"], "title": "Defaults", "description": "Merged under every service."}
    definitions["Service"]["required"] = ["name"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Services of airflow-provider-cd",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "defaults": defaults,
            "services": {"type": "array", "items": {"$ref": _REFERENCE.format(model="Service")}},
            "trains": {"type": "array", "items": {"$ref": _REFERENCE.format(model="Train")}},
            "freezes": {"type": "array", "items": {"$ref": _REFERENCE.format(model="Freeze")}},
            "clusters": {"type": "array", "items": {"$ref": _REFERENCE.format(model="Cluster")}},
        },
        "$defs": definitions,
    }


def _with_short_form(build: dict[str, Any]) -> dict[str, Any]:
    """A list of commands alone stands for ``{commands: ...}``."""
    return {"anyOf": [build, build["properties"]["commands"]]}


def written() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(services_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
