"""Folders for keys and passwords: for this user alone, and gone with their process, however it ends."""

from __future__ import annotations

import atexit
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir, mkdtemp

# Kind, namespace of process ids, process id, and when that process began: an id is used again.
_NAME = re.compile(r"cd-(?:git|kube)-(\d+)-(\d+)-(\d+)-.*")
_swept: set[int] = set()
_kept: dict[tuple[int, str], Path] = {}


@contextmanager
def private_folder(kind: str) -> Iterator[Path]:
    """
    Open an empty folder in the system's folder for temporary files; it is gone afterwards.

    What a process that was killed left there is removed by the next process that opens one. It is not locked
    by a file, which would let a process that was stopped hold up all the others.

    :param kind: ``git`` or ``kube``
    """
    with TemporaryDirectory(prefix=_prefix(kind)) as folder:
        yield Path(folder)


def folder_of_process(kind: str) -> Path:
    """Return such a folder that is there for as long as this process is."""
    key = (os.getpid(), kind)
    if key not in _kept:
        folder = _kept[key] = Path(mkdtemp(prefix=_prefix(kind)))
        atexit.register(_remove, os.getpid(), folder)
    return _kept[key]


def _remove(pid: int, folder: Path) -> None:
    # A fork has the folder of its parent on its list, too.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _prefix(kind: str) -> str:
    if os.getpid() not in _swept:
        _swept.add(os.getpid())
        sweep()
    return f"cd-{kind}-{_namespace()}-{os.getpid()}-{_began(os.getpid()) or 0}-"


def sweep() -> None:
    """Remove the folders of this user whose processes are gone."""
    for folder in Path(gettempdir()).glob("cd-*"):
        found = _NAME.fullmatch(folder.name)
        if found is None or int(found[1]) != _namespace() or _began(int(found[2])) == int(found[3]):
            continue
        with suppress(OSError):  # another process sweeps, too
            if folder.lstat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)


def _namespace() -> int:
    """Return what tells containers apart that share the folder: each counts its own processes."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _began(pid: int) -> int | None:
    """Return when a process began, in a number of its own; ``None`` when it is gone."""
    try:
        # Ticks since the machine started: no change of the clock moves them. See proc_pid_stat(5), field 22.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
