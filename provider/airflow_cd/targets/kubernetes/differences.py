"""How what a release wants differs from what a cluster has, for people to read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import yaml

from airflow_cd.targets.kubernetes.objects import PREFIX, Reference

# Kept by the server, or by kubectl: they say nothing about what anybody wants.
_SERVERS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_KUBECTLS = "kubectl.kubernetes.io/last-applied-configuration"
NEW = "new"


class FieldDifference(NamedTuple):
    """
    One object that an application of a release would change.

    :param text: unified diff of YAML, from what there is to what would be; ``new`` for an object that there
        is not. Values of secrets are not in it.
    """

    reference: Reference
    text: str


def text_of(live: Mapping[str, Any], planned: Mapping[str, Any], name: str) -> str:
    """Return how two states of an object differ, empty when they do not. :param name: of the object"""
    before, after = _normalised(live), _normalised(planned)
    if live.get("kind") == "Secret":
        _mask(before, after)
    lines = difflib.unified_diff(
        _yaml(before), _yaml(after), f"cluster/{name}", f"release/{name}", lineterm=""
    )
    return "\n".join(lines)


def _normalised(obj: Mapping[str, Any]) -> dict[str, Any]:
    kept = deepcopy({name: value for name, value in obj.items() if name != "status"})
    metadata = kept.get("metadata") or {}
    for name in _SERVERS:
        metadata.pop(name, None)
    _strip_annotations(metadata)
    spec = kept.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if isinstance(template, dict):
        _strip_annotations(template.get("metadata") or {})
    return kept


def _strip_annotations(metadata: dict[str, Any]) -> None:
    """Take what changes with every release, whatever that changes, out of an object's metadata."""
    annotations = metadata.pop("annotations", None) or {}
    kept = {
        name: value
        for name, value in annotations.items()
        if name != _KUBECTLS and not name.startswith(PREFIX)
    }
    if kept:
        metadata["annotations"] = kept


def _mask(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Put into the place of values only whether they differ."""
    for field in ("data", "stringData"):
        old, new = before.get(field) or {}, after.get(field) or {}
        same = {name for name in old if old[name] == new.get(name)}
        for values, side in ((old, "before"), (new, "after")):
            for name in values:
                values[name] = "(masked)" if name in same else f"(masked, {side})"


def _yaml(obj: dict[str, Any]) -> list[str]:
    return yaml.safe_dump(obj, default_flow_style=False, width=10**6).splitlines()
