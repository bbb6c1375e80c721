"""A workspace in containers: where it is, what commands find around it, and the tar stream it travels as."""

from __future__ import annotations

import shutil
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from airflow_cd.processes.environment import SOURCE_DATE_EPOCH

# Where the volume that the commands of a job share is in each of their containers.
MOUNT = "/cd"
WORKSPACE, HOME, TMP = f"{MOUNT}/workspace", f"{MOUNT}/home", f"{MOUNT}/tmp"
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


def unpack(file: IO[bytes], folder: Path) -> None:
    """Replace the folder's content by that of the ``workspace`` in a tar."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    with tarfile.open(fileobj=file, mode="r") as archive:
        # Links may lead anywhere here: the archive of the workspace checks them.
        archive.extractall(folder.parent, members=_renamed(archive, folder.name), filter=_ours)


def _renamed(archive: tarfile.TarFile, name: str) -> Iterable[tarfile.TarInfo]:
    """Yield the members under the folder's own name, which is `workspace` in the container."""
    for member in archive:
        member.name = _moved(member.name, name)
        if member.islnk():
            member.linkname = _moved(member.linkname, name)
        yield member


def _moved(path: str, name: str) -> str:
    _, slash, rest = path.partition("/")
    return f"{name}{slash}{rest}"


def _ours(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Extracted members belong to the current user, and stay below the folder."""
    safe = tarfile.tar_filter(member, folder)
    return safe.replace(uid=None, gid=None, uname=None, gname=None, deep=False)  # type: ignore[arg-type]


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
    return member
