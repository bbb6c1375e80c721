"""
Runs as a build user: starts one command, and ends it with all it started when the worker says so, or dies.

The worker runs the text of this file, as the user need not be able to read the worker's packages: nothing but
Python's own library is imported. A request is one line of JSON on standard input. ``run`` ends its command at
the end of standard input, which comes however the worker ends. The worker cannot send signals to another
user's processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_GRACE_SECONDS = 5.0
# What a process that outlives its parent may still say before nobody listens any more.
_LAST_WORDS_SECONDS = 1.0
_END_SECONDS = 10.0
# Where every user can write, and leave something for the next build.
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (nothing is written there)


def main() -> None:
    """Do what the request says; the exit code is that of the command."""
    request: dict[str, Any] = json.loads(_line())
    if os.getuid() == 0 or os.getuid() != request["uid"]:
        # Ending all processes of this user would end others than the builds'.
        sys.exit(f"this is user {os.getuid()}, and not {request['uid']}")
    if request["do"] == "clear":
        for socket in request["closed"]:
            if os.access(socket, os.W_OK):
                sys.exit(f"user {os.getuid()} can use {socket}, and so become root: take it out of its group")
        _clear(Path(request["home"]))
        return
    code = _run(request)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler that could be changed
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _line() -> bytes:
    """Read the one line there is."""
    line = b""
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            sys.exit("the worker ended")
        line += chunk
    return line


def _run(request: dict[str, Any]) -> int:
    argv, env = request["argv"], request["env"]
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        command = subprocess.Popen(
            argv, cwd=request["cwd"], env=env, stdin=subprocess.DEVNULL, start_new_session=True
        )
    except FileNotFoundError:
        print(f"{argv[0]!r} was not found: install it, or write its path relative to the source", flush=True)
        return 127
    except PermissionError:
        print(f"{argv[0]!r} is not executable for user {os.getuid()}: chmod +x it", flush=True)
        return 126
    while command.poll() is None:
        ready = select.select([0, woken], [], [], 1)[0]
        if woken in ready:
            os.read(woken, 64)
        if 0 in ready and not os.read(0, 64):
            _end(command)
            break
    else:
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while _others() and time.monotonic() < until:
            time.sleep(0.05)
    _end_others()
    return command.wait()


def _end(command: subprocess.Popen[bytes]) -> None:
    """End the whole group: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            command.wait(_GRACE_SECONDS)


def _end_others() -> None:
    """End every other process of this user, whatever session, group and environment it has."""
    until = time.monotonic() + _END_SECONDS
    while others := _others():
        if time.monotonic() > until:
            sys.exit(f"processes of user {os.getuid()} cannot be ended: {others}")
        # To all at once: what is ended one by one starts the next meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        time.sleep(0.01)


def _others() -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended just now
            # The owner of the folder would be root for a process that allows no dumps of itself.
            status = dict(line.partition(":")[::2] for line in (folder / "status").read_text().splitlines())
            if int(status["Uid"].split()[0]) == os.getuid() and status["State"].split()[0] not in "ZX":
                found.append(int(folder.name))
    return found


def _clear(home: Path) -> None:
    """Leave nothing of an earlier build: neither processes nor files, nor a home that others can enter."""
    _end_others()
    if home.stat().st_uid != os.getuid():
        sys.exit(f"the home folder {home} must belong to user {os.getuid()} alone")
    home.chmod(0o700)
    _empty(home)
    for shared in _SHARED:
        with contextlib.suppress(FileNotFoundError):
            _empty(Path(shared), but=home)


def _empty(folder: Path, but: Path | None = None) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_uid != os.getuid() or path == but:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, onerror=_open_up)
            else:
                path.unlink()


def _open_up(function: Any, path: str, error: Any) -> None:
    """Remove what a build closed to itself, such as the folders of a module cache."""
    for closed in (os.path.dirname(path), path):
        if not os.path.islink(closed):
            os.chmod(closed, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


if __name__ == "__main__":
    main()
