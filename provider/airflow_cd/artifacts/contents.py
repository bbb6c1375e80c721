"""
What is in an archive, member by member: recorded when a release is made, so that of an archive that was
changed afterwards it can be said what differs.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from airflow_cd.artifacts.archive import opened
from airflow_cd.artifacts.members import shown
from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError

_MOST_NAMES = 20


class Contents(NamedTuple):
    """
    :param members: path -> ``sha256:<hex>`` (then `` executable``), ``link:<where to>`` or ``folder``
    :param problem: why the archive could not be read any further, ``None`` when it was read to its end
    """

    members: dict[str, str]
    problem: str | None = None


def contents(archive: Path) -> Contents:
    """Read an archive as far as that is possible."""
    members: dict[str, str] = {}
    try:
        with opened(archive, archive.parent) as (tar, found):
            for member in found:
                members[member.name] = _described(tar, member)
    except (ArtifactError, OSError) as error:
        return Contents(members, str(error))
    return Contents(members)


def list_of(archive: Path) -> bytes:
    """
    Return the list of an archive's members as canonical JSON: an object of path and what is there.

    :raises ArtifactError: it cannot be read
    """
    members, problem = contents(archive)
    if problem is not None:
        raise ArtifactError(problem)
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def parsed(document: bytes) -> dict[str, str]:
    """Return the list that :func:`list_of` gave. :raises ArtifactCorruptError: it is something else"""
    try:
        members = json.loads(document)
    except ValueError as error:
        raise ArtifactCorruptError("the list of members is not JSON") from error
    if not isinstance(members, dict):
        raise ArtifactCorruptError("the list of members is not a JSON object")
    return members


def differences(recorded: Mapping[str, str], now: Contents) -> str:
    """Say which members were changed, added and removed, with at most 20 names each."""
    both = recorded.keys() & now.members.keys()
    changed = [name for name in both if recorded[name] != now.members[name]]
    added = now.members.keys() - recorded.keys()
    missing = recorded.keys() - now.members.keys()
    parts = [
        f"{what}: {_names(names)}"
        for what, names in (
            ("changed", changed),
            ("added", added),
            ("not readable" if now.problem else "removed", missing),
        )
        if names
    ]
    if now.problem:
        parts.append(f"it cannot be read to its end: {now.problem}")
    if not parts:
        return "no member differs: its compression, order or padding was changed"
    return "; ".join(parts)


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.isdir():
        return "folder"
    if member.issym():
        return f"link:{member.linkname}"
    content = tar.extractfile(member)
    assert content is not None
    hasher = hashlib.sha256()
    with content:
        while chunk := content.read(1024 * 1024):
            hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}" + (" executable" if member.mode & 0o100 else "")


def _names(names: set[str] | list[str]) -> str:
    few = [shown(name) for name in sorted(names)[:_MOST_NAMES]]
    more = len(names) - len(few)
    return ", ".join(few) + (f" and {more} more" if more else "")
