"""Which members an archive may have: judged by names alone, before anything is written."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from airflow_cd.artifacts.bounded import BoundedReader
from airflow_cd.exceptions import UnsafeArchiveError

# Header blocks of one member, with names as long as a file system takes them.
HEADER_BYTES = 64 * 1024
_BLOCK = 512
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# A second opinion on links, where this Python has one.
_data_filter = getattr(tarfile, "data_filter", None)


def safe_members(
    archive: tarfile.TarFile, stream: BoundedReader, folder: Path, *, max_bytes: int, max_members: int
) -> Iterator[tarfile.TarInfo]:
    """
    Yield the members in order, each with a clean relative name.

    :param stream: what the archive is read from; it is allowed the bytes of the member that is yielded
    :param folder: where they are to be written
    :raises UnsafeArchiveError: at the first that may not be written
    """
    seen: set[str] = set()
    links: set[str] = set()
    total = 0
    while (member := _next(archive, stream)) is not None:
        member.name = str(PurePosixPath(member.name))
        total += member.size
        if member.size < 0 or total > max_bytes or len(seen) >= max_members:
            raise UnsafeArchiveError(
                f"the archive holds more than {max_bytes} bytes or {max_members} members"
            )
        _check_name(member.name, seen, links)
        _check_kind(member)
        _check_twice(member, folder)
        seen.add(member.name)
        if member.issym():
            links.add(member.name)
        stream.allow(member.size + _BLOCK)
        yield member


def check_link(name: str, target: str) -> None:
    """
    Check a symbolic link by its text.

    Only ``../`` up to the folder and then names are allowed. Every link of a folder being like that, and none
    lying behind another, no chain of them leaves the folder; ``a/..`` could, when ``a`` is a link itself.

    :param name: of the link, relative to the folder
    :raises UnsafeArchiveError: the link leaves the folder, or could
    """
    parts = PurePosixPath(target).parts
    landing = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if not target or os.path.isabs(target) or landing == ".." or landing.startswith("../"):
        raise UnsafeArchiveError(f"the link {shown(name)} points outside the folder, to {shown(target)}")
    down = False
    for part in parts:
        if down and part == "..":
            raise UnsafeArchiveError(
                f"the link {shown(name)} goes down and up again, to {shown(target)}, which other links can "
                "turn into a way out of the folder; write its shortest form"
            )
        down = down or part != ".."


def shown(name: str) -> str:
    """Return a name that somebody else chose as a log line can carry it."""
    return repr(_UNPRINTABLE.sub("?", name)[:200])


def native(name: str) -> str:
    """Return the name of an archive, which is UTF-8, as this process names files."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def portable(name: str | bytes) -> str:
    """Return the name of a file as archives hold it, whatever the locale of this process."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _next(archive: tarfile.TarFile, stream: BoundedReader) -> tarfile.TarInfo | None:
    stream.allow(HEADER_BYTES)
    # Python 3.10 goes on reading before the begin of an archive that has no members at all.
    if archive.firstmember is None and archive.offset == 0:  # type: ignore[attr-defined]
        return None
    # The first one was read when the archive was opened; next() then hands it out again.
    return archive.next()


def _check_name(name: str, seen: set[str], links: set[str]) -> None:
    path = PurePosixPath(name)
    if name in seen:
        raise UnsafeArchiveError(f"{shown(name)} is in the archive twice")
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UnsafeArchiveError(f"{shown(name)} would be written outside the folder")
    if not links.isdisjoint(map(str, path.parents)):
        raise UnsafeArchiveError(f"{shown(name)} would be written through a link")


def _check_kind(member: tarfile.TarInfo) -> None:
    if member.issym():
        check_link(member.name, member.linkname)
    elif member.issparse() or not (member.isreg() or member.isdir()):
        raise UnsafeArchiveError(f"{shown(member.name)} is neither a file, a folder nor a symbolic link")


def _check_twice(member: tarfile.TarInfo, folder: Path) -> None:
    # Of files and folders the name says all there is to say, and asking costs a third of the unpacking.
    if _data_filter is None or not member.issym():
        return
    renamed = member.replace(name=native(member.name), linkname=native(member.linkname), deep=False)
    try:
        _data_filter(renamed, str(folder))
    except tarfile.TarError as error:
        raise UnsafeArchiveError(f"{shown(member.name)} is not safe to unpack: {error}") from error
