"""Starts the supervisord of a local target's folder, and knows the socket at which it answers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
supervisor.rpcinterface_factory=airflow_cd.targets.local.programs:make_programs

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
    Start the supervisord of a folder; it may not answer yet when this returns.

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

    :raises TargetError: somebody else could
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
