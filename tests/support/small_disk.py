"""File systems that are soon full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.requirements import require

_PAGE = 4096


class SmallDisk:
    """
    A file system of its own, mounted at ``path``.

    :param path: an empty folder
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Take all room there is but for ``leave`` bytes."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while filler.write(b"x" * _PAGE) == _PAGE:
                    pass
            except OSError:
                pass
            filler.truncate(max(filler.tell() // _PAGE * _PAGE - leave, 0))

    def make_room(self) -> None:
        """Give back what :meth:`fill` took."""
        self._filler.unlink()

    def files(self) -> set[str]:
        """Return the names of all files but the filler."""
        found = (path for path in self.path.rglob("*") if path.is_file() and path != self._filler)
        return {str(path.relative_to(self.path)) for path in found}


@contextmanager
def mounted(path: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a file system of that size (``256k``, ``4m``), or skip the test where only root may."""
    path.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    may = os.getuid() == 0 and subprocess.run(argv, capture_output=True).returncode == 0
    require(may, "only root may mount a small file system: run as root, in a container that may mount")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: what was killed a moment ago may still hold a file.
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with mounted(tmp_path / "small", "256k") as disk:
        yield disk.path
