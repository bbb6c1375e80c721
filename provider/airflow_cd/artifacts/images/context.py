"""What is sent to the engine to build from: the same bytes for the same files."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import IO

from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError

# 1980-01-01 UTC, as in archives: times and owners say nothing about the content.
_TIME = 315532800


def write_context(folder: Path, dockerfile: str, into: IO[bytes]) -> None:
    """
    Write the folder as a tar, without what its ``.dockerignore`` names.

    :param dockerfile: relative to ``folder``; it is sent even where it is ignored
    :raises ArtifactError: there is no such Dockerfile
    :raises UnsafeArchiveError: a link leads out of the folder
    """
    from docker.utils.build import exclude_paths

    if not (folder / dockerfile).is_file():
        raise ArtifactError(f"there is no {dockerfile!r} in the context; correct `dockerfile:` or `context:`")
    ignore = folder / ".dockerignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    root = folder.resolve()
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile)):
            path = folder / name
            if path.is_symlink() and not _leads_inside(path, root):
                raise UnsafeArchiveError(f"the link {name!r} leads out of the context; remove or ignore it")
            _add(tar, path, name)


def _leads_inside(path: Path, root: Path) -> bool:
    target = os.readlink(path)
    return not os.path.isabs(target) and (path.parent / target).resolve().is_relative_to(root)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tar.gettarinfo(str(path), name)
    info.mtime, info.uid, info.gid, info.uname, info.gname = _TIME, 0, 0, "", ""
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    if info.isreg():
        with path.open("rb") as content:
            tar.addfile(info, content)
    else:
        tar.addfile(info)
