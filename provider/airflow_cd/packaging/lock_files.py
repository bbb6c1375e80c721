"""Reads the packages that lock files declare, for Python and npm."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from airflow_cd.exceptions import ArtifactError

_LENGTHS = {"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


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

    @classmethod
    def checked(
        cls, ecosystem: str, name: Any, version: Any, lockfile: str, hashes: Iterable[Any], development: bool
    ) -> Dependency:
        """
        Return the dependency a lock file states.

        :param hashes: those of kinds that CycloneDX does not know are left out
        :raises ValueError: name or version is no text, or empty
        """
        for what, value in (("name", name), ("version", version)):
            if not isinstance(value, str) or not value:
                raise ValueError(f"a package has the {what} {value!r}")
        known = tuple(sorted({value for value in hashes if isinstance(value, str) and _is_known(value)}))
        return cls(ecosystem, name, version, lockfile, known, development)


def _is_known(value: str) -> bool:
    algorithm, _, digest = value.partition(":")
    return len(digest) == _LENGTHS.get(algorithm) and _HEX.fullmatch(digest) is not None


_FOLDER = "node_modules/"


def npm_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """
    Yield the packages.

    :raises ValueError: or another error of a malformed document
    """
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


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# name[extras]==version; a version with a wildcard or a second condition pins nothing.
_PINNED = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*={2,3}\s*"
    r"([A-Za-z0-9][A-Za-z0-9.!+_-]*)(?=\s|;|#|$)(?!\s*,)"
)
_LONGEST_PIN = 500
_HASH = re.compile(r"--hash[= ](sha256|sha384|sha512):([0-9a-f]+)")
_DEVELOPMENT = {"dev", "develop", "development", "test", "tests"}


def uv_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """
    Yield the packages.

    :raises ValueError: or another error of a malformed document
    """
    packages = tomllib.loads(text).get("package", [])
    development = _development_only(packages)
    for package in packages:
        # A project need not state its version, and neither does what lies beside it.
        if "version" in package and not _is_local(package):
            hashes = [file.get("hash") for file in _files(package)]
            yield _pypi(package, lockfile, hashes, package["name"] in development)


def poetry_lock(text: str, lockfile: str) -> Iterator[Dependency]:
    """
    Yield the packages.

    :raises ValueError: or another error of a malformed document
    """
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
    """
    Yield the packages.

    :raises ValueError: or another error of a malformed document
    """
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
        # Name and version come first; all the rest of a line is hashes.
        pinned = _PINNED.match(line.strip()[:_LONGEST_PIN])
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


Reader = Callable[[str, str], Iterator[Dependency]]

_READERS: dict[str, Reader] = {
    "uv.lock": uv_lock,
    "poetry.lock": poetry_lock,
    "pylock.toml": pylock,
    "pylock.*.toml": pylock,
    "Pipfile.lock": pipfile_lock,
    "requirements*.txt": requirements,
    "package-lock.json": npm_lock,
    "npm-shrinkwrap.json": npm_lock,
}


def read_lockfiles(folder: Path) -> list[Dependency] | None:
    """
    Return what all lock files in the folder declare, sorted, each package once; ``None`` without any.

    Folders below are not looked at. A requirements file that pins nothing is not a lock file.

    :raises ArtifactError: a lock file is malformed
    """
    found: dict[tuple[str, str, str], Dependency] = {}
    counted = False
    for path, read in _lockfiles(folder):
        dependencies = _read(path, read)
        counted = counted or bool(dependencies) or read is not requirements
        for dependency in dependencies:
            key = dependency[:3]
            # What one file needs in production is not a development dependency because another says so.
            if key not in found or (found[key].development and not dependency.development):
                found[key] = dependency
    return [found[key] for key in sorted(found)] if counted else None


def _lockfiles(folder: Path) -> Iterator[tuple[Path, Reader]]:
    for pattern, read in _READERS.items():
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                yield path, read


# The largest ones of large projects have a tenth of it.
_LONGEST_FILE = 64 * 1024 * 1024


def _read(path: Path, read: Reader) -> list[Dependency]:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_FILE + 1)
        if len(content) > _LONGEST_FILE:
            raise ValueError(f"it is larger than {_LONGEST_FILE >> 20} MiB")
        # Some editors put a byte order mark before the text.
        return list(read(content.decode("utf-8-sig").replace("\r\n", "\n"), path.name))
    except KeyError as error:
        why = f"a package has no {error}"
        raise ArtifactError(f"the lock file {path.name} cannot be read: {why}; generate it again") from error
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ArtifactError(
            f"the lock file {path.name} cannot be read: {error}; generate it again"
        ) from error
