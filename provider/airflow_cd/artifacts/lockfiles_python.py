"""Reads the lock files of Python's tools."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from airflow_cd.artifacts.dependency import Dependency

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# name[extras]==version; a version with a wildcard or a second condition pins nothing.
_PINNED = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*={2,3}\s*"
    r"([A-Za-z0-9][A-Za-z0-9.!+_-]*)(?=\s|;|#|$)(?!\s*,)"
)
_HASH = re.compile(r"--hash[= ](sha256|sha384|sha512):([0-9a-f]+)")
_DEVELOPMENT = {"dev", "develop", "development", "test", "tests"}


def uv_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield the packages. :raises ValueError: or another error of a malformed document"""
    packages = tomllib.loads(text).get("package", [])
    development = _development_only(packages)
    for package in packages:
        # A project need not state its version, and neither does what lies beside it.
        if "version" in package and not _is_local(package):
            hashes = [file.get("hash") for file in _files(package)]
            yield _pypi(package, lockfile, hashes, package["name"] in development)


def poetry_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield the packages. :raises ValueError: or another error of a malformed document"""
    content = tomllib.loads(text)
    old_files = content.get("metadata", {}).get("files", {})  # where lock files before 2.0 have them
    for package in content.get("package", []):
        files = package.get("files") or old_files.get(package["name"], [])
        groups = package.get("groups") or [package.get("category", "main")]
        yield _pypi(package, lockfile, [file.get("hash") for file in files], "main" not in groups)


def pylock(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield the packages of https://packaging.python.org/en/latest/specifications/pylock-toml/."""
    for package in tomllib.loads(text).get("packages", []):
        if "version" in package:
            files = [*_files(package), *filter(None, [package.get("archive")])]
            hashes = [f"{kind}:{value}" for file in files for kind, value in file.get("hashes", {}).items()]
            yield _pypi(package, lockfile, hashes)


def pipfile_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield the packages. :raises ValueError: or another error of a malformed document"""
    content = json.loads(text)
    for section, development in (("default", False), ("develop", True)):
        for name, entry in content.get(section, {}).items():
            if "version" in entry:
                package = {"name": name, "version": entry["version"].lstrip("=")}
                yield _pypi(package, lockfile, entry.get("hashes", []), development)


def requirements(text: str, lockfile: str) -> Iterator[Dependency]:
    """Yield what is pinned with ``==``; other lines say what may be installed, not what is."""
    development = not _DEVELOPMENT.isdisjoint(re.split(r"[-_.]", lockfile))
    for line in text.replace("\\\n", " ").splitlines():
        pinned = _PINNED.match(line.strip())
        if pinned:
            hashes = [f"{kind}:{value}" for kind, value in _HASH.findall(line)]
            yield _pypi({"name": pinned[1], "version": pinned[2]}, lockfile, hashes, development)


def _pypi(
    package: dict[str, Any], lockfile: str, hashes: Iterable[Any], development: bool = False
) -> Dependency:
    name = re.sub(r"[-_.]+", "-", package["name"]).lower()  # https://peps.python.org/pep-0503/
    return Dependency.checked("pypi", name, package["version"], lockfile, hashes, development)


def _files(package: dict[str, Any]) -> list[dict[str, Any]]:
    return [*package.get("wheels", []), *filter(None, [package.get("sdist")])]


def _is_local(package: dict[str, Any]) -> bool:
    return not {"editable", "virtual", "directory"}.isdisjoint(package.get("source", {}))


def _development_only(packages: list[dict[str, Any]]) -> set[str]:
    """Return what only the dependency groups of the project lead to."""
    needs: dict[str, set[str]] = {}
    groups: set[str] = set()
    for package in packages:
        extras = package.get("optional-dependencies", {}).values()
        lists = [package.get("dependencies", []), *extras]
        needs.setdefault(package["name"], set()).update(_names(lists))
        groups |= _names(package.get("dev-dependencies", {}).values())
    local = {package["name"] for package in packages if _is_local(package)}
    return _reached(groups, needs) - _reached(local, needs)


def _names(lists: Iterable[list[dict[str, Any]]]) -> set[str]:
    return {dependency["name"] for one in lists for dependency in one}


def _reached(start: set[str], needs: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    left = set(start)
    while left:
        name = left.pop()
        reached.add(name)
        left |= needs.get(name, set()) - reached
    return reached
