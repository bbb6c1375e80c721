"""Archives that are the same bytes for the same files, and that unpack inside their folder or not at all."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from airflow_cd.artifacts.patterns import Patterns
from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError

# 1980-01-01 UTC: member times say nothing about the content, so they are all the same.
_TIME = 315532800
_MAX_BYTES = 8 * 1024**3
_MAX_MEMBERS = 500_000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def pack(folder: Path, into: Path, *, include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
    """
    Write the files that match to the ``.tar.gz`` file ``into`` and return their names, sorted.

    The bytes depend on names, contents, executable bits and link targets, and on nothing else.

    :param include: patterns; ``**`` crosses folders, ``*`` does not, a folder stands for all below it
    :param exclude: patterns of what to leave out of that
    :raises ArtifactError: an include pattern matches nothing
    :raises UnsafeArchiveError: a link leaves the folder, or a file is neither file nor link
    """
    chosen = _chosen(folder, include, exclude)
    with into.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in chosen:
                _add(archive, folder, name)
    return chosen


def unpack(
    archive: Path, into: Path, *, max_bytes: int = _MAX_BYTES, max_members: int = _MAX_MEMBERS
) -> None:
    """
    Unpack a ``.tar.gz`` file to the new folder ``into``, which appears whole or not at all.

    :raises UnsafeArchiveError: a member is not what :func:`pack` writes (``..``, absolute names, devices,
        links that leave the folder, a name twice), or there is more of it than allowed
    :raises ArtifactError: it is not an archive, or ``into`` exists
    """
    if into.exists():
        raise ArtifactError(f"cannot unpack to {into}: it exists")
    into.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in _checked(opened, max_bytes, max_members):
                _extract(opened, member, temporary)
        os.chmod(temporary, 0o755)
        os.rename(temporary, into)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise ArtifactError(f"{archive.name} is not a .tar.gz archive: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    for path, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(path, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(path, name), folder)


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    path = folder / name
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mtime = _TIME
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        _check_link(name, info.linkname)
        archive.addfile(info)
        return
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeArchiveError(f"{name!r} is neither a file nor a link; exclude it")
    info.size = status.st_size
    info.mode = 0o755 if status.st_mode & 0o100 else 0o644
    with path.open("rb") as content:
        archive.addfile(info, content)


def _checked(archive: tarfile.TarFile, max_bytes: int, max_members: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members, each judged before it is written."""
    seen: set[str] = set()
    links: set[str] = set()
    total = 0
    for member in archive:
        name = str(PurePosixPath(member.name))
        total += member.size
        if name in seen:
            raise UnsafeArchiveError(f"{_shown(name)} is in the archive twice")
        if total > max_bytes or len(seen) >= max_members:
            raise UnsafeArchiveError(
                f"the archive holds more than {max_bytes} bytes or {max_members} members"
            )
        _check_name(name)
        parents = {str(parent) for parent in PurePosixPath(name).parents}
        if parents & links:
            raise UnsafeArchiveError(f"{_shown(name)} would be written through a link")
        _check_kind(member, name)
        seen.add(name)
        if member.issym():
            links.add(name)
        yield member


def _check_name(name: str) -> None:
    if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
        raise UnsafeArchiveError(f"{_shown(name)} would be written outside the folder")


def _check_kind(member: tarfile.TarInfo, name: str) -> None:
    if member.issym():
        _check_link(name, member.linkname)
    elif not (member.isreg() or member.isdir()):
        raise UnsafeArchiveError(f"{_shown(name)} is neither a file, a folder nor a symbolic link")


def _check_link(name: str, target: str) -> None:
    landing = os.path.normpath(os.path.join(os.path.dirname(name), target))
    if os.path.isabs(target) or landing == ".." or landing.startswith("../"):
        raise UnsafeArchiveError(f"the link {_shown(name)} points outside the folder, to {_shown(target)}")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    else:
        content = archive.extractfile(member)
        assert content is not None
        with content, path.open("xb") as target:
            shutil.copyfileobj(content, target)
        # Neither owner nor setuid bits are taken over, only whether it can be run.
        os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
        os.utime(path, (_TIME, _TIME))


def _shown(name: str) -> str:
    return repr(_UNPRINTABLE.sub("?", name)[:200])
