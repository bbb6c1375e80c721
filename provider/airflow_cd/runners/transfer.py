"""A workspace on its way into a container and back, as the engine takes and gives it: a tar stream."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from docker.models.containers import Container

# Where the job's volume is in each of its containers.
MOUNT = "/cd"
WORKSPACE, HOME = f"{MOUNT}/workspace", f"{MOUNT}/home"
_IN_MEMORY = 16 * 1024 * 1024


def upload(container: Container, folder: Path, user: str) -> None:
    """
    Put a copy of the folder's content into the container's workspace, and an empty home beside it.

    :param user: ``uid`` or ``uid:gid`` of who owns it there
    """
    uid, _, gid = user.partition(":")
    owner = int(uid), int(gid or uid)

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid, member.gid = owner
        member.uname = member.gname = ""
        return member

    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in ("home", "tmp"):
                archive.addfile(owned(_folder(name)))
            archive.add(folder, "workspace", filter=owned)
        file.seek(0)
        container.put_archive(MOUNT, file)


def download(container: Container, folder: Path) -> None:
    """Replace the folder's content by that of the container's workspace."""
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        _write(container.get_archive(WORKSPACE)[0], file)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with tarfile.open(fileobj=file, mode="r") as archive:
            # Links may lead anywhere here: whoever packs the workspace looks at them.
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
    """What comes out belongs to whoever takes it out, and stays below the folder."""
    safe = tarfile.tar_filter(member, folder)
    return safe.replace(uid=None, gid=None, uname=None, gname=None, deep=False)  # type: ignore[arg-type]


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o700, int(time.time())
    return member


def _write(chunks: Iterable[bytes], file: IO[bytes]) -> None:
    for chunk in chunks:
        file.write(chunk)
    file.seek(0)
