"""Reads what the lock files of a folder declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_cd.artifacts.dependency import Dependency
from airflow_cd.artifacts.lockfiles_npm import npm_lock
from airflow_cd.artifacts.lockfiles_python import pipfile_lock, poetry_lock, pylock, requirements, uv_lock
from airflow_cd.exceptions import ArtifactError

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


def _read(path: Path, read: Reader) -> list[Dependency]:
    try:
        # Some editors put a byte order mark before the text.
        return list(read(path.read_text(encoding="utf-8-sig"), path.name))
    except KeyError as error:
        why = f"a package has no {error}"
        raise ArtifactError(f"the lock file {path.name} cannot be read: {why}; generate it again") from error
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ArtifactError(
            f"the lock file {path.name} cannot be read: {error}; generate it again"
        ) from error
