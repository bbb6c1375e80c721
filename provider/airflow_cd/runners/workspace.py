"""A workspace in containers: where it is, what commands find around it, and the tar stream it travels as."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from airflow_cd.exceptions import RunnerError
from airflow_cd.model.text import printable
from airflow_cd.processes.environment import SOURCE_DATE_EPOCH

log = logging.getLogger(__name__)

# Where the volume that the commands of a job share is in each of their containers.
MOUNT = "/cd"
WORKSPACE, HOME, TMP = f"{MOUNT}/workspace", f"{MOUNT}/home", f"{MOUNT}/tmp"
# Node.js projects have a hundred thousand files, and images of machine learning some GiB.
_LIMITS = {"workspace_max_files": 2_000_000, "workspace_max_bytes": 20 * 1024**3}
BASE_ENVIRONMENT = {
    "HOME": HOME,
    "TMPDIR": TMP,
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONUNBUFFERED": "1",
    "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
}


def ids_of(user: str) -> tuple[int, int]:
    """Return the user's and the group's number of ``uid`` or ``uid:gid``."""
    uid, _, gid = user.partition(":")
    return int(uid), int(gid or uid)


def pack(folder: Path, file: IO[bytes], user: str, *, last: str | None = None, plain: bool = False) -> None:
    """
    Write a tar of the folder's content as ``workspace``, and of an empty ``home`` and ``tmp`` before it.

    :param user: who owns it, as of :func:`ids_of`
    :param last: name of an empty file that comes after all the rest
    :param plain: write it for a tar that knows no extended headers, and may run as that user: such a one
        cannot put anything into folders that are not the user's to write to
    """
    owner = ids_of(user)

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = owner
        member.uname = member.gname = ""
        if plain and member.isdir():
            member.mode |= 0o700
        return member

    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT if plain else None) as archive:
        for name in ("home", "tmp"):
            archive.addfile(owned(_folder(name)))
        archive.add(folder, "workspace", filter=owned)
        if last is not None:
            archive.addfile(owned(tarfile.TarInfo(last)))


class BoundedFile:
    """
    Takes a tar that comes from a container, up to a limit.

    :param file: where it goes
    :param longest: bytes; default: ``[cd] workspace_max_bytes``
    """

    def __init__(self, file: IO[bytes], longest: int | None = None) -> None:
        self._file = file
        self._longest = self._left = longest if longest is not None else _limit("workspace_max_bytes")

    def write(self, chunk: bytes) -> None:
        """
        Write the next bytes.

        :raises RunnerError: there are more than allowed
        """
        self._left -= len(chunk)
        if self._left < 0:
            raise RunnerError(
                f"the command left more than {self._longest} bytes in its workspace; delete what is not part "
                "of the release, or raise [cd] workspace_max_bytes"
            )
        self._file.write(chunk)


def unpack(file: IO[bytes], folder: Path) -> None:
    """
    Replace the folder's content by that of the ``workspace`` in a tar.

    :raises RunnerError: it has more files than ``[cd] workspace_max_files``, or one that lies outside
    """
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with tarfile.open(fileobj=file, mode="r") as archive:
        # Filters came with Python 3.11.4, and Debian 12 has 3.11.2: members are checked here.
        trusted = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
        archive.extractall(folder.parent, members=_checked(archive, folder.name), **trusted)  # type: ignore[arg-type]


def _checked(archive: tarfile.TarFile, name: str) -> Iterable[tarfile.TarInfo]:
    """
    Yield the members under the folder's own name, which is `workspace` in the container.

    Links may lead anywhere: the archive of the workspace checks them. Nothing is written through one.
    """
    longest, links = _limit("workspace_max_files"), set[PurePosixPath]()
    for number, member in enumerate(archive, 1):
        if number > longest:
            raise RunnerError(
                f"the command left more than {longest} files in its workspace; delete what is not part of "
                "the release, or raise [cd] workspace_max_files"
            )
        member.name = _moved(member.name, name)
        if member.islnk():
            member.linkname = _moved(member.linkname, name)
        path = PurePosixPath(member.name)
        target = PurePosixPath(member.linkname if member.islnk() else name)
        # No folder has such a file: such a tar was made by hand, to reach files outside of the workspace.
        for one in (path, target):
            if one.is_absolute() or ".." in one.parts or not links.isdisjoint(one.parents):
                raise RunnerError(f"the workspace has {printable(str(one), 200)!r}, which lies outside of it")
        if path in links:
            raise RunnerError(f"the workspace has {printable(str(path), 200)!r} twice, once as a link")
        if member.isdev():
            log.warning("%s is a device or a pipe, and is left out", printable(str(path), 200))
            continue
        if member.issym() or target in links:
            links.add(path)
        yield _owned_by_us(member)


def _owned_by_us(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the member as a file of the current user that others cannot write, without special rights."""
    member.uid, member.gid = os.getuid(), os.getgid()
    member.uname = member.gname = ""
    member.mode &= 0o755
    return member


def _limit(option: str) -> int:
    from airflow.configuration import conf

    return conf.getint("cd", option, fallback=_LIMITS[option])


def _moved(path: str, name: str) -> str:
    _, slash, rest = path.partition("/")
    return f"{name}{slash}{rest}"


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
    return member
