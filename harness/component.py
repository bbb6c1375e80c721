"""One long-running process with everything it starts: started in a session of its own, ended whole."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
# What is taken over from the caller: nothing of Airflow's, git's or Python's settings.
_INHERITED = (
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "KUBECONFIG",
)


class Component:
    """
    A server process that logs to a file.

    :param name: for messages
    :param argv: program and arguments
    :param env: its whole environment
    :param log: the file its output is appended to
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name, self.argv, self.env, self.log = name, list(argv), dict(env), log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while the process has not been stopped."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code when the process ended by itself, else ``None``."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process. On Linux it ends when the process that started it dies, however that happens."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process and to everything it started."""
        if self._process is None:
            return
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait()

    def stop(self, grace: float = 10.0) -> None:
        """
        End the process and everything it started; what is left after ``grace`` seconds is killed.

        Stopping twice, or what never started, does nothing.
        """
        if self._process is None:
            return
        family = self._family()
        self._signal_leader(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        # The leader had the chance to end its children in an orderly way.
        self._end(family + self._family())
        self._process.wait()
        self._process = None

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 64 * 1024))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"(no log: {error})"

    def _signal_leader(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def _family(self) -> list[psutil.Process]:
        """Return the live processes that descend from the leader or share its session."""
        if self._process is None:
            return []
        leader = self._process.pid
        found = {process.pid: process for process in psutil.process_iter() if _session(process.pid) == leader}
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(leader)
            found.update({process.pid: process for process in [root, *root.children(recursive=True)]})
        return list(found.values())

    @staticmethod
    def _end(processes: Sequence[psutil.Process]) -> None:
        """psutil compares creation times, so a process id that was given out again is left alone."""
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            _, alive = psutil.wait_procs(processes, timeout=3)
            if not alive:
                return


def kill_tree(root: psutil.Process) -> None:
    """
    Kill a process and all that descend from it, as at the death of their machine.

    All of them are stopped first, so that none sees another one die and reports it.
    """
    root.suspend()
    tree = [root, *root.children(recursive=True)]
    for end in (psutil.Process.suspend, psutil.Process.kill):
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                end(process)
    psutil.wait_procs(tree, timeout=10)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here: between fork and exec nothing may be imported or loaded.
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of this demonstration: the interpreter's programs come first."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}
