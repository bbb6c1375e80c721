"""Places where a process waits until it is killed or let go: named pipes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
from harness.waiting import wait_until


class Trap:
    """
    A named pipe that holds each process that opens it for reading, from :meth:`set` to :meth:`remove`.

    :param path: where it is set; a file that is there comes back when the trap is removed
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept = path.with_name(f"{path.name}.kept")
        self._writing: int | None = None

    def set(self) -> Trap:
        """Hold every process that comes from now on."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self.path.rename(self._kept)
        os.mkfifo(self.path)
        return self

    def caught(
        self, number: int = 1, *, timeout: float = 90, explain: Callable[[], str] | None = None
    ) -> list[psutil.Process]:
        """
        Wait until so many are held, and return their processes.

        :param explain: returns what is known about why they did not come
        :raises NotInTimeError: they did not come
        """

        def find() -> list[psutil.Process]:
            if self._writing is None:
                try:
                    self._writing = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:  # nobody reads
                    return []
            held = [process for process in psutil.process_iter() if self._holds(process)]
            return held if len(held) >= number else []

        what = f"{number} process(es) run into {self.path.name}"
        return wait_until(find, what, timeout=timeout, every=0.05, explain=explain)

    def remove(self) -> None:
        """Release the held processes, and hold no more. Doing it again does nothing."""
        self.path.unlink(missing_ok=True)
        if self._kept.exists():
            self._kept.rename(self.path)
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def _holds(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            opened = list(Path(f"/proc/{process.pid}/fd").iterdir())
        except OSError:  # it ended, or it is another owner's
            return False
        return any(_leads_to(fd) == str(self.path) for fd in opened)


def _leads_to(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""
