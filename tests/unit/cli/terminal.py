"""Runs commands in a process with a terminal of its own, or with none."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence

# Starting Airflow takes seconds: one process runs several commands, as `airflow` would run each.
_DRIVER = """
import fcntl, json, signal, sys, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may ignore it
if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from airflow.__main__ import main
for argv in json.loads(sys.argv[1]):
    sys.argv[:] = ["airflow", *argv]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    print(f"<exit {code}>", flush=True)
"""
_PATIENCE = 120
_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("COLUMNS", "LINES", "AIRFLOW_CD_PASSWORD", "AIRFLOW_CD_TOKEN")
}


def airflow_command(*argv: str) -> list[str]:
    """Return the command line of ``airflow <argv>``."""
    return [sys.executable, "-m", "airflow", *argv]


def several(*argvs: Sequence[str]) -> list[str]:
    """Return the command line of a process that runs these ``airflow`` commands in turn."""
    return [sys.executable, "-c", _DRIVER, json.dumps(argvs)]


def without_terminal(argv: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    """Run a process that has no terminal: standard input is empty, its output is read through pipes."""
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        env={**_ENVIRONMENT, **env},
        timeout=_PATIENCE,
    )


def in_terminal(
    argv: Sequence[str], columns: int = 80, keys: Sequence[tuple[str, bytes]] = (), **env: str
) -> str:
    """
    Run a process that has a terminal, and return what it shows.

    :param columns: the terminal's width
    :param keys: what is typed, each as soon as a text is shown behind the one before
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**_ENVIRONMENT, "TERM": "xterm", **env},
    )
    os.close(theirs)
    try:
        return _shown(ours, list(keys)).replace("\r\n", "\n")
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def _shown(terminal: int, keys: list[tuple[str, bytes]]) -> str:
    shown, seen = b"", 0
    while True:
        assert select.select([terminal], [], [], _PATIENCE)[0], f"nothing more than {shown!r}"
        try:
            new = os.read(terminal, 65536)
        except OSError:  # so Linux says that the process is gone
            new = b""
        if not new:
            return shown.decode()
        shown += new
        if keys and (found := shown.find(keys[0][0].encode(), seen)) >= 0:
            seen = found + len(keys[0][0])
            os.write(terminal, keys.pop(0)[1])
