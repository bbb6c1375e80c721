"""Reads package-lock.json and npm-shrinkwrap.json, versions 1 to 3."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from airflow_cd.artifacts.dependency import Dependency

_FOLDER = "node_modules/"


def npm_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield the packages. :raises ValueError: or another error of a malformed document"""
    content = json.loads(text)
    # Version 2 has both, saying the same; only `packages` tells what is part of the project itself.
    if "packages" not in content:
        yield from _tree(content.get("dependencies", {}), lockfile)
    for path, entry in content.get("packages", {}).items():
        # The project and its workspaces are not in node_modules, but linked from there.
        if _FOLDER in path and "version" in entry and not entry.get("link"):
            yield _package(entry.get("name") or path.rpartition(_FOLDER)[2], entry, lockfile)


def _tree(dependencies: dict[str, Any], lockfile: str) -> Iterator[Dependency]:
    """Lock files of version 1 nest what could not be shared."""
    for name, entry in dependencies.items():
        if not str(entry["version"]).startswith("file:"):
            yield _package(name, entry, lockfile)
        yield from _tree(entry.get("dependencies", {}), lockfile)


def _package(name: str, entry: dict[str, Any], lockfile: str) -> Dependency:
    version = entry["version"]
    if isinstance(version, str) and version.startswith("npm:"):  # an alias: npm:real-name@version
        name, _, version = version.removeprefix("npm:").rpartition("@")
    development = bool(entry.get("dev") or entry.get("devOptional"))
    hashes = [_hash(part) for part in str(entry.get("integrity", "")).split()]
    return Dependency.checked("npm", name, version, lockfile, hashes, development)


def _hash(integrity: str) -> str:
    """Turn ``sha512-<base64>`` (https://www.w3.org/TR/SRI/) into ``sha512:<hex>``."""
    algorithm, _, encoded = integrity.partition("-")
    return f"{algorithm}:{base64.b64decode(encoded.partition('?')[0], validate=True).hex()}"
