"""Folders for the work of one process, which are removed with it, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

_LOCK = ".lock"


@contextmanager
def scratch_folder(root: Path, prefix: str) -> Iterator[Path]:
    """
    Open an empty folder below ``root``; it is gone afterwards.

    What a process that was killed could not remove is removed by the next one that opens a folder here:
    the kernel gives back the lock that every folder's process holds while it lives.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / _LOCK):
        _remove_abandoned(root)
        temporary = TemporaryDirectory(prefix=f"{prefix}-", dir=root, ignore_cleanup_errors=True)
        folder = Path(temporary.name)
        alive = _lock_of(folder)
        alive.acquire()
    try:
        with temporary:
            yield folder
    finally:
        alive.release()
        Path(alive.lock_file).unlink(missing_ok=True)


def remove_abandoned(root: Path, *, dry_run: bool = False) -> tuple[int, int]:
    """
    Remove what processes that were killed left below ``root``, as the next one that opens a folder would.

    :return: how many folders, and how many bytes
    """
    if not root.is_dir():
        return 0, 0
    with FileLock(root / _LOCK):
        abandoned = [one for one in root.iterdir() if one.is_dir() and _is_abandoned(one)]
        sizes = [size_of(folder) for folder in abandoned]
        if not dry_run:
            _remove_abandoned(root)
    return len(abandoned), sum(sizes)


def size_of(folder: Path) -> int:
    """Return how many bytes the files below a folder have, as far as they can be read."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(path, name)).st_size
    return size


def _remove_abandoned(root: Path) -> None:
    """Called by one process at a time, so that no folder is seen between its making and its locking."""
    with TemporaryDirectory(prefix="abandoned-", dir=root, ignore_cleanup_errors=True) as bin_:
        for folder in root.iterdir():
            if folder.is_dir() and folder != Path(bin_) and _is_abandoned(folder):
                folder.rename(Path(bin_) / folder.name)


def _is_abandoned(folder: Path) -> bool:
    lock = _lock_of(folder)
    try:
        with lock.acquire(timeout=0):
            Path(lock.lock_file).unlink(missing_ok=True)
            return True
    except Timeout:
        return False


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(folder.name + _LOCK))
