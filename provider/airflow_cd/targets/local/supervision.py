"""
Keeps processes running with supervisord (http://supervisord.org), one per local target folder.

It is a daemon of its own: it survives the task that started it, and Airflow itself. Programs are files, so
a supervisord that is started again, after a reboot say, starts all of them again.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from filelock import FileLock

from airflow_cd.exceptions import TargetError
from airflow_cd.targets.local.daemon import check_folder, socket_of, start_daemon
from airflow_cd.targets.local.layout import write_durably

# https://supervisord.org/api.html, "Faults" and "Process states"
_UNKNOWN_METHOD, _SHUTTING_DOWN, _BAD_NAME, _NOT_RUNNING = 1, 6, 10, 70
_ALIVE = {"STARTING", "RUNNING"}
_ENDED = {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}
_START_SECONDS = 30.0

_PROGRAM = """\
[program:{name}]
command={command}
autostart=true
autorestart=true
startsecs=1
startretries=5
stopwaitsecs={stop_seconds}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""


class Process(NamedTuple):
    """A supervised process. ``pid`` is 0 when it does not run."""

    state: str
    pid: int
    description: str

    @property
    def alive(self) -> bool:
        """Tell whether it runs, or is about to."""
        return self.state in _ALIVE and self.pid > 0


class Supervisor:
    """
    The supervisord of a folder.

    :param root: folder of the local target
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._programs = root / "supervisor.d"

    def ensure_running(self) -> None:
        """Start supervisord unless it runs. :raises TargetError: it does not start"""
        if self._answers():
            return
        check_folder(self.root)
        self._programs.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "supervisord.lock"):
            if not self._answers():
                self._start()

    def add(self, name: str, argv: Sequence[str], log: Path, *, stop_seconds: int = 10) -> None:
        """
        Run a program from now on, replacing one of the same name.

        :param stop_seconds: how long it may take to end after SIGTERM
        """
        self.ensure_running()
        self.remove(name)
        command = shlex.join(argv).replace("%", "%%")
        content = _PROGRAM.format(
            name=name, command=command, log=str(log).replace("%", "%%"), stop_seconds=stop_seconds
        )
        file = self._programs / f"{name}.conf"
        write_durably(file, content.encode())
        try:
            self._proxy().airflow_cd.add(str(file))
        except Fault as fault:
            if fault.faultCode != _UNKNOWN_METHOD:
                raise TargetError(f"supervisord cannot run {name!r}: {fault.faultString}") from fault
            # One that a former version of this library started, and that has run since.
            self._api().reloadConfig()
            self._api().addProcessGroup(name)

    def remove(self, name: str) -> None:
        """End a program and forget it; nothing happens when there is none."""
        if self.process(name) is not None:
            self._end(name)
        # Last: a program whose file is gone would be found by nobody, should this process be killed before.
        (self._programs / f"{name}.conf").unlink(missing_ok=True)

    def _end(self, name: str) -> None:
        # Asked to wait itself, supervisord would notice the end at its next look round, up to a second later;
        # every question makes it look. It kills what does not end within `stopwaitsecs`.
        self._tell("stopProcessGroup", name, False)
        _wait_until(lambda: self._has_ended(name), f"supervisord cannot stop {name!r}")
        self._tell("removeProcessGroup", name)

    def _tell(self, method: str, name: str, *arguments: bool) -> None:
        try:
            getattr(self._api(), method)(name, *arguments)
        except Fault as fault:
            if fault.faultCode not in (_BAD_NAME, _NOT_RUNNING):
                raise TargetError(f"supervisord cannot stop {name!r}: {fault.faultString}") from fault

    def _has_ended(self, name: str) -> bool:
        process = self.process(name)
        return process is None or process.state in _ENDED

    def process(self, name: str) -> Process | None:
        """Return how a program fares, or ``None`` when there is no such program, or no supervisord."""
        try:
            info = self._api().getProcessInfo(name)
        except OSError:  # it does not run
            return None
        except Fault as fault:
            if fault.faultCode in (_BAD_NAME, _SHUTTING_DOWN):
                return None
            raise TargetError(f"supervisord does not tell about {name!r}: {fault.faultString}") from fault
        return Process(info["statename"], int(info["pid"]), str(info["description"]))

    def names(self, prefix: str) -> list[str]:
        """Return the programs whose names start so."""
        return sorted(path.stem for path in self._programs.glob(f"{prefix}*.conf"))

    def shutdown(self) -> None:
        """End supervisord and every process it runs, and wait for that."""
        if not self._answers():
            return
        pid = int(self._api().getPID())
        self._api().shutdown()
        # It waits for all of them, and many end together slower than one.
        allowed = _START_SECONDS + len(self.names(""))
        _wait_until(lambda: not _exists(pid), "supervisord does not end", allowed)

    def _start(self) -> None:
        start_daemon(self.root)
        _wait_until(self._answers, f"supervisord does not answer; see {self.root}/supervisord.log")

    def _api(self) -> Any:
        return self._proxy().supervisor

    def _proxy(self) -> ServerProxy:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, serverurl=f"unix://{socket_of(self.root)}")
        return ServerProxy("http://localhost", transport=transport)

    def _answers(self) -> bool:
        if not socket_of(self.root).exists():
            return False
        try:
            return bool(self._api().getState()["statename"] == "RUNNING")
        except (OSError, Fault):
            return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until(condition: Any, problem: str, seconds: float = _START_SECONDS) -> None:
    deadline, pause = time.monotonic() + seconds, 0.005
    while not condition():
        if time.monotonic() > deadline:
            raise TargetError(problem)
        time.sleep(pause)
        # What ends at all mostly ends within some milliseconds.
        pause = min(2 * pause, 0.05)
