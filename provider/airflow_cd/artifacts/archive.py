"""Archives that are the same bytes for the same files, and that unpack inside their folder or not at all."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_cd.artifacts.bounded import BoundedReader
from airflow_cd.artifacts.members import HEADER_BYTES, check_link, native, portable, safe_members, shown
from airflow_cd.artifacts.patterns import Patterns
from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError
from airflow_cd.processes.disk import write_problem

# 1980-01-01 UTC: member times say nothing about the content, so they are all the same.
_TIME = 315532800
_LEVEL = 6
_MAX_BYTES = 8 * 1024**3
_MAX_MEMBERS = 500_000
# PAX: names of any length, in UTF-8 whatever the locale. Its other records (times, owners) are never needed.
_FORMAT: dict[str, Any] = {"format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape"}
_NO_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError)


def pack(folder: Path, into: Path, *, include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """
    Write what matches to the ``.tar.gz`` file ``into`` and return the names, sorted.

    The bytes depend on names, contents, executable bits and link targets, and on nothing else of the files
    or the machine; a Python whose zlib compresses otherwise (zlib-ng) writes other bytes. Folders are kept
    when they are empty.

    :param include: patterns; ``**`` crosses folders, ``*`` does not, a folder stands for all below it
    :param exclude: patterns of what to leave out of that
    :raises ArtifactError: an include pattern matches nothing, or a file cannot be read or written
    :raises UnsafeArchiveError: a link leaves the folder, or a file is neither file nor link
    """
    if folder.resolve() in into.resolve().parents:
        raise ArtifactError(f"the archive {into} would lie in the folder it is made of, {folder}")
    try:
        chosen = _chosen(folder, include, exclude)
        _write(folder, into, chosen)
    except OSError as error:
        raise ArtifactError(f"cannot pack {folder} to {into}: {write_problem(error, into.parent)}") from error
    return chosen


def unpack(
    archive: Path, into: Path, *, max_bytes: int = _MAX_BYTES, max_members: int = _MAX_MEMBERS
) -> None:
    """
    Unpack a ``.tar.gz`` file to the new folder ``into``, which appears whole or not at all.

    :param max_bytes: what all files together may hold
    :raises UnsafeArchiveError: a member is not what :func:`pack` writes (``..``, absolute names, devices,
        links that leave the folder, a name twice), or there is more of it than allowed
    :raises ArtifactError: it is not an archive, ``into`` exists, or it cannot be written
    """
    if os.path.lexists(into):
        raise ArtifactError(f"cannot unpack to {into}: it exists")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            _extract_all(archive, temporary, max_bytes, max_members)
            os.rename(temporary, into)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        problem = write_problem(error, into.parent)
        raise ArtifactError(f"cannot unpack {archive.name} to {into}: {problem}") from error


def _chosen(folder: Path, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    names = sorted(_walk(folder))
    excluded = Patterns(exclude)
    chosen: set[str] = set()
    for pattern in include:
        one = Patterns([pattern])
        found = {name for name in names if one.match(name)}
        # `**` of an empty tree is an empty archive; a name that is not there is a mistake.
        if not found and pattern != "**":
            raise ArtifactError(f"the package pattern {pattern!r} matches no file; correct `include:`")
        chosen |= found
    return [name for name in names if name in chosen and not excluded.match(name)]


def _walk(folder: Path) -> Iterator[str]:
    """Yield files, links and empty folders. What cannot be listed is an error, not an absence."""
    for path, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in (*files, *links):
            yield portable(os.path.relpath(os.path.join(path, name), folder))
        if not folders and not files and path != str(folder):
            yield portable(os.path.relpath(path, folder))


def _raise(error: OSError) -> None:
    raise error


def _write(folder: Path, into: Path, names: Sequence[str]) -> None:
    try:
        with into.open("wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as zipped:
            with tarfile.open(fileobj=zipped, mode="w", **_FORMAT) as archive:
                for name in names:
                    _add(archive, folder, name)
    except BaseException:
        into.unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    path = folder / native(name)
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mtime = _TIME
    info.mode = 0o755 if status.st_mode & 0o100 else 0o644
    if stat.S_ISREG(status.st_mode):
        info.size = status.st_size
        with path.open("rb") as content:
            archive.addfile(info, content)
        return
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, portable(os.readlink(path)), 0o644
        check_link(name, info.linkname)
    elif stat.S_ISDIR(status.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        raise UnsafeArchiveError(f"{shown(name)} is neither a file nor a link; exclude it")
    archive.addfile(info)


@contextmanager
def opened(
    archive: Path, folder: Path, *, max_bytes: int = _MAX_BYTES, max_members: int = _MAX_MEMBERS
) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """
    Open a ``.tar.gz`` file to go through its members once, each checked before it is given.

    :param folder: where they are to be written, or would be
    :raises UnsafeArchiveError: as :func:`unpack`
    :raises ArtifactError: it is not an archive, or cannot be read
    """
    try:
        with gzip.open(archive, "rb") as zipped:
            stream = BoundedReader(zipped)
            stream.allow(HEADER_BYTES)
            reader: Any = stream
            with tarfile.open(fileobj=reader, mode="r:", **_FORMAT) as tar:
                yield tar, safe_members(tar, stream, folder, max_bytes=max_bytes, max_members=max_members)
            if not stream.finish():
                raise tarfile.ReadError("there is something behind its end")
    except _NO_ARCHIVE as error:
        raise ArtifactError(f"{archive.name} is not a .tar.gz archive: {error}") from error


def _extract_all(archive: Path, folder: Path, max_bytes: int, max_members: int) -> None:
    links: list[tuple[Path, str]] = []
    with opened(archive, folder, max_bytes=max_bytes, max_members=max_members) as (tar, members):
        for member in members:
            path = folder / native(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                links.append((path, native(member.linkname)))
            else:
                _extract(tar, member, path)
    # Last, so that no file is written through one, whatever names the file system holds to be the same.
    for path, target in links:
        path.symlink_to(target)
    for path_of_folder, _, _ in os.walk(folder):
        os.chmod(path_of_folder, 0o755)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(exist_ok=True)
        return
    content = archive.extractfile(member)
    assert content is not None
    with content, path.open("xb") as target:
        shutil.copyfileobj(content, target)
    # Neither owner nor setuid bits are taken over, only whether it can be run.
    os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
    os.utime(path, (_TIME, _TIME))
