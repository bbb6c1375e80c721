"""Files of a tree that somebody else wrote: only what is really in it, and only so much of it."""

from __future__ import annotations

from pathlib import Path

from airflow_cd.artifacts.manifest_documents import MAX_BYTES
from airflow_cd.exceptions import ManifestError
from airflow_cd.model.text import printable

_LONGEST_NAME = 200


def inside(path: Path, tree: Path, name: str) -> Path:
    """
    Return the file or folder that a path leads to, without links.

    :param tree: without links in its own path
    :param name: of the path, for messages
    :raises ManifestError: there is none, or it is outside the tree
    """
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = "leads in a circle" if isinstance(error, RuntimeError) else "does not exist"
        raise ManifestError(
            f"{shown(name)}: this {reason} in the source; correct the name, or commit the file"
        ) from error
    if not found.is_relative_to(tree):
        raise ManifestError(
            f"{shown(name)}: this leads out of the source, by a link or by `..`; keep the file there"
        )
    return found


def read(file: Path, name: str) -> str:
    """Return the text of a file. :raises ManifestError: it is no file, too large, or not UTF-8"""
    if not file.is_file():
        raise ManifestError(f"{name}: this is not a file; remove or rename it")
    with file.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ManifestError(f"{name}: this is larger than {MAX_BYTES} bytes; keep only manifests here")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{name}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def shown(name: str) -> str:
    """Return a name that somebody else chose as a message can carry it."""
    return printable(name, _LONGEST_NAME)


def relative(path: Path, tree: Path) -> str:
    """Return the name of a path of the tree as a message can carry it."""
    return shown(path.relative_to(tree).as_posix())
