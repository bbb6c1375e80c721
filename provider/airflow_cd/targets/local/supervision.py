"""Supervises processes with supervisord (http://supervisord.org), one per folder of a local target."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from filelock import FileLock

from airflow_cd.exceptions import TargetError
from airflow_cd.processes.environment import clean_environment
from airflow_cd.targets.local.layout import write_durably

_MEANINGFUL = "%;*?[]{}\n\r"
_LONGEST_SOCKET = 100  # bytes; supervisord appends a process id while it starts

_MAIN = """\
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
pidfile=%(here)s/supervisord.pid
logfile=%(here)s/supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
childlogdir=%(here)s
directory=%(here)s
umask=022

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:airflow_cd]
supervisor.rpcinterface_factory=airflow_cd.targets.local.supervisor_plugin:make_programs

[include]
files=supervisor.d/*.conf
"""


def check_folder(root: Path) -> None:
    """
    Refuse a folder whose name the configuration of supervisord or of Caddy has no way to write.

    :raises TargetError: it is one
    """
    if odd := sorted(set(str(root)) & set(_MEANINGFUL)):
        raise TargetError(
            f"the folder {root} has {' '.join(odd)} in its name, which supervisord or Caddy take "
            "for something else; choose another `data_dir` in the section [cd] of Airflow's configuration"
        )


def start_daemon(root: Path) -> None:
    """
    Start the supervisord of a folder; it might not answer yet when this returns.

    :raises TargetError: it does not start, another one runs there, or its socket would not be private
    """
    _check_no_other(root)
    config = root / "supervisord.conf"
    socket = str(_prepare_socket(root)).replace("%", "%%")
    write_durably(config, _MAIN.format(socket=socket).encode())
    ran = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        env=clean_environment(),
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if ran.returncode:
        words = ran.stdout.decode("utf-8", "replace").strip()
        raise TargetError(f"supervisord does not start: {words or f'see {root}/supervisord.log'}")


def socket_of(root: Path) -> Path:
    """
    Return the socket's path.

    It may have 107 bytes at most. A longer one lies in a private folder for temporary files, and where
    that is gets written down: not every process has the same ``TMPDIR``.
    """
    if len(os.fsencode(beside := root / "supervisord.sock")) <= _LONGEST_SOCKET:
        return beside
    noted = root / "supervisord.socket-path"
    try:
        return Path(noted.read_text())
    except FileNotFoundError:
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        file = Path(f"airflow-cd-{os.getuid()}", f"{name}.sock")
        wanted = Path(tempfile.gettempdir()) / file
        # TMPDIR may be too long as well; the system's own folder never is.
        return wanted if len(os.fsencode(wanted)) <= _LONGEST_SOCKET else Path("/tmp") / file


def _prepare_socket(root: Path) -> Path:
    """
    Return the socket's path, in a folder nobody else can get into.

    :raises TargetError: other users can write it
    """
    path = socket_of(root)
    if path.parent != root:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        status = path.parent.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077 or path.parent.is_symlink():
            raise TargetError(f"{path.parent} is not a private folder of this user; remove it")
        write_durably(root / "supervisord.socket-path", str(path).encode())
    return path


def _check_no_other(root: Path) -> None:
    """Two supervisors of one folder would run everything twice."""
    try:
        pid = int((root / "supervisord.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if os.fsencode(root / "supervisord.conf") in command:
        raise TargetError(
            f"supervisord of {root} runs (process {pid}) but does not answer at {socket_of(root)}; "
            "end that process, then try again"
        )


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
        """
        Start supervisord unless it runs.

        :raises TargetError: it does not start
        """
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
