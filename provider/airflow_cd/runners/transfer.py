"""A workspace on its way into a container of a Docker engine and back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.runners.workspace import MOUNT, WORKSPACE, pack, unpack

if TYPE_CHECKING:
    from docker.models.containers import Container

_IN_MEMORY = 16 * 1024 * 1024


def upload(container: Container, folder: Path, user: str) -> None:
    """
    Put a copy of the folder's content into the container's workspace, and an empty home beside it.

    :param user: ``uid`` or ``uid:gid`` of who owns it there
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        pack(folder, file, user)  # type: ignore[arg-type, unused-ignore]
        file.seek(0)
        container.put_archive(MOUNT, file)


def download(container: Container, folder: Path) -> None:
    """Replace the folder's content by that of the container's workspace."""
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        for chunk in container.get_archive(WORKSPACE)[0]:
            file.write(chunk)
        file.seek(0)
        unpack(file, folder)
