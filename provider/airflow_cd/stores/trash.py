"""
What an artifact store removes lies here for a while, from where a use of it brings it back.

A collector decides what nobody needs, and removes it a moment later. Between the two, a task may store the
same bytes again, or use a workspace that was made before, and must not lose them. Neither side holds a lock:
a store may be shared by machines that can lock nothing together, and a writer may be killed. Instead:

1. Every use changes the file's identity (inode and time of change): a write replaces the file, and
   :meth:`~airflow_cd.stores.base.ArtifactStore.touch` sets its time.
2. The collector leaves alone what was used within the last day: such a use may be unknown to it. Of all else
   it notes the identity. To remove a file, it renames it into the trash, and then looks at what it moved:
   when that is not what it had noted, the file was used meanwhile, and is put back.
3. A reader, or a ``touch``, that misses a file takes it out of the trash. So at no moment is a file missing
   for those who use it, also while step 2 is under way, and after a collector was killed within it.
4. A file is deleted by a later run only, when it has lain in the trash for a day and still nobody needs it.

So a use before the rename is seen in step 2, and a use after it is step 3. A use that only *names* a file,
without reading or writing it, has the day of step 4 to become visible, and its name counts as a need then.
The clocks of the machines must agree to within hours, no better.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Identity(NamedTuple):
    """What changes with every use of a file, but not when it is renamed."""

    inode: int
    changed: int
    size: int

    @classmethod
    def of(cls, path: Path) -> Identity:
        """
        Return that of the file.

        :raises FileNotFoundError: it is gone
        """
        status = path.stat()
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)


class Thrown(NamedTuple):
    """
    A file in the trash.

    :param path: where it lies now
    :param place: where it lay, relative to the store
    :param owner: on whose behalf it was removed
    :param at: when, in seconds since the epoch
    """

    path: Path
    place: Path
    owner: str
    at: float
    size: int


class Trash:
    """
    The folder ``trash`` of a store: ``trash/<time>-<random>/<owner>/<place>``.

    :param root: the store's folder
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / "trash"

    def new_bag(self, at: float) -> Path:
        """Return a folder for what one collector removes, which is made when there is something."""
        return self._folder / f"{int(at)}-{secrets.token_hex(4)}"

    def throw(self, place: Path, seen: Identity, bag: Path, owner: str) -> bool:
        """
        Remove a file, unless it was used since it was seen. Return whether it is removed.

        :param place: relative to the store
        :param bag: of :meth:`new_bag`
        :raises OSError: the store cannot be written
        """
        target = bag / owner / place
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(self._root / place, target)
            if Identity.of(target) == seen:
                return True
        except FileNotFoundError:  # removed by another collector, or taken back already
            return False
        self._put_back(target, place)
        return False

    def take_back(self, place: Path) -> bool:
        """
        Put a file back, as one that was used just now. Return whether one of this name was here.

        :raises OSError: the store cannot be written
        """
        return any([self._put_back(path, place) for path in self._all_of(place)])

    def thrown(self) -> Iterator[Thrown]:
        """Yield what is here."""
        for bag in self._listed(self._folder):
            seconds = bag.name.partition("-")[0]
            for owner in self._listed(bag) if seconds.isdigit() else ():
                for path in owner.rglob("*"):
                    with suppress(FileNotFoundError):  # taken back meanwhile
                        if path.is_file():
                            place = path.relative_to(owner)
                            yield Thrown(path, place, owner.name, float(seconds), path.stat().st_size)

    def delete(self, one: Thrown) -> bool:
        """Delete a file for good. Return whether it was still here."""
        try:
            one.path.unlink()
        except FileNotFoundError:
            return False
        with suppress(OSError):  # the last one takes the folders along
            for folder in one.path.parents:
                if folder == self._folder:
                    break
                folder.rmdir()
        return True

    def _put_back(self, path: Path, place: Path) -> bool:
        target = self._root / place
        try:
            os.utime(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _appear(path, target)
        except FileNotFoundError:  # another reader was faster
            return target.exists()
        return True

    def _all_of(self, place: Path) -> Iterator[Path]:
        for bag in self._listed(self._folder):
            for owner in self._listed(bag):
                if (path := owner / place).exists():
                    yield path

    @staticmethod
    def _listed(folder: Path) -> list[Path]:
        """Return what is in the folder, newest first; nothing when there is none."""
        try:
            return sorted(folder.iterdir(), reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _appear(path: Path, target: Path) -> None:
    """Move a file to a place, unless there is one by now: what was written there meanwhile is newer."""
    try:
        os.link(path, target)
    except (FileExistsError, FileNotFoundError):
        pass
    except OSError:  # a file system without links
        if not target.exists():
            os.rename(path, target)
            return
    path.unlink()
