"""Reads what the lock files of Python and npm declare."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from airflow_cd.exceptions import ArtifactError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*===?\s*([^\s;#\\]+)")
_HASH = re.compile(r"--hash=(sha256|sha384|sha512):([0-9a-f]+)")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class Dependency(NamedTuple):
    """
    One locked package.

    :param ecosystem: its package URL type: ``pypi`` or ``npm``
    :param hashes: ``sha256:<hex>``, sorted
    :param development: needed to build or test only
    """

    ecosystem: str
    name: str
    version: str
    lockfile: str
    hashes: tuple[str, ...] = ()
    development: bool = False


def read_lockfiles(folder: Path) -> list[Dependency] | None:
    """
    Return what all lock files in the folder declare, sorted, each package once; ``None`` without any.

    :raises ArtifactError: a lock file is malformed
    """
    found: dict[tuple[str, str, str], Dependency] = {}
    files = [(path, read) for pattern, read in _READERS.items() for path in sorted(folder.glob(pattern))]
    for path, read in files:
        for dependency in _reading(path, read):
            key = dependency[:3]
            # What one file needs in production is not a development dependency because another says so.
            if key not in found or found[key].development:
                found[key] = dependency
    return [found[key] for key in sorted(found)] if files else None


def _reading(path: Path, read: Callable[[str, str], Iterator[Dependency]]) -> Iterator[Dependency]:
    try:
        yield from read(path.read_text(encoding="utf-8"), path.name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"the lock file {path.name} cannot be read: {error!r}; make it anew") from error


def _pypi(name: str, version: str, lockfile: str, hashes: Any = (), development: bool = False) -> Dependency:
    normal = re.sub(r"[-_.]+", "-", name).lower()  # https://peps.python.org/pep-0503/
    return Dependency(
        "pypi", normal, version, lockfile, tuple(sorted(set(filter(_known, hashes)))), development
    )


def _known(value: str) -> bool:
    algorithm, _, digest = value.partition(":")
    return len(digest) == _LENGTHS.get(algorithm)


def _uv_lock(text: str, name: str) -> Iterator[Dependency]:
    for package in tomllib.loads(text).get("package", ()):
        if {"editable", "virtual", "directory"} & set(package.get("source", {})) or "version" not in package:
            continue
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        yield _pypi(package["name"], package["version"], name, [file.get("hash", "") for file in files])


def _poetry_lock(text: str, name: str) -> Iterator[Dependency]:
    for package in tomllib.loads(text).get("package", ()):
        hashes = [file.get("hash", "") for file in package.get("files", ())]
        groups = package.get("groups", ["main"])
        yield _pypi(package["name"], package["version"], name, hashes, "main" not in groups)


def _pylock(text: str, name: str) -> Iterator[Dependency]:
    for package in tomllib.loads(text).get("packages", ()):
        if "version" not in package:
            continue
        files = [*package.get("wheels", ()), *filter(None, [package.get("sdist")])]
        hashes = [f"{kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()]
        yield _pypi(package["name"], package["version"], name, hashes)


def _pipfile_lock(text: str, name: str) -> Iterator[Dependency]:
    content = json.loads(text)
    for section, development in (("default", False), ("develop", True)):
        for package, entry in content.get(section, {}).items():
            if "version" in entry:
                version = entry["version"].lstrip("=")
                yield _pypi(package, version, name, entry.get("hashes", ()), development)


def _requirements(text: str, name: str) -> Iterator[Dependency]:
    for line in text.replace("\\\n", " ").splitlines():
        pinned = _PINNED.match(line.strip())
        if pinned:
            hashes = [f"{kind}:{value}" for kind, value in _HASH.findall(line)]
            yield _pypi(pinned[1], pinned[2], name, hashes, "dev" in name)


def _npm_lock(text: str, name: str) -> Iterator[Dependency]:
    content = json.loads(text)
    if "packages" not in content:
        yield from _npm_tree(content.get("dependencies", {}), name)
    for path, entry in content.get("packages", {}).items():
        package = entry.get("name") or path.rpartition("node_modules/")[2]
        if path and "version" in entry and not entry.get("link"):
            yield _npm(package, entry, name)


def _npm_tree(dependencies: dict[str, Any], lockfile: str) -> Iterator[Dependency]:
    """Lock files of version 1 nest what could not be shared."""
    for package, entry in dependencies.items():
        yield _npm(package, entry, lockfile)
        yield from _npm_tree(entry.get("dependencies", {}), lockfile)


def _npm(package: str, entry: dict[str, Any], lockfile: str) -> Dependency:
    import base64

    hashes = []
    for integrity in str(entry.get("integrity", "")).split():
        algorithm, _, encoded = integrity.partition("-")
        hashes.append(f"{algorithm}:{base64.b64decode(encoded).hex()}")
    development = bool(entry.get("dev") or entry.get("devOptional"))
    known = tuple(sorted(set(filter(_known, hashes))))
    return Dependency("npm", package, entry["version"], lockfile, known, development)


_READERS: dict[str, Callable[[str, str], Iterator[Dependency]]] = {
    "uv.lock": _uv_lock,
    "poetry.lock": _poetry_lock,
    "pylock*.toml": _pylock,
    "Pipfile.lock": _pipfile_lock,
    "requirements*.txt": _requirements,
    "package-lock.json": _npm_lock,
    "npm-shrinkwrap.json": _npm_lock,
}
