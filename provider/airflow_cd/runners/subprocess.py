"""Runs commands as processes of the worker."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from airflow_cd.exceptions import CommandError, CommandTimeoutError
from airflow_cd.processes.environment import SOURCE_DATE_EPOCH, clean_environment
from airflow_cd.processes.process_cookie import COOKIE, end_marked, new_cookie
from airflow_cd.runners.lines import Lines

_GRACE_SECONDS = 5.0
# What a process that outlives its parent may still say before nobody listens any more.
_LAST_WORDS_SECONDS = 1.0


class SubprocessRunner:
    """
    Runs one command at a time, each as the leader of its own process group.

    On Linux the command is ended by the kernel when the worker dies, so that a retry elsewhere does not
    run beside it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._cookie = ""

    @contextmanager
    def job(self, name: str, folder: Path) -> Iterator[None]:
        """Commands work in the folder itself, so there is nothing to prepare."""
        yield

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout: float,
        on_line: Callable[[str], None],
    ) -> None:
        """Run one command to its end; see :class:`airflow_cd.runners.base.Runner`."""
        deadline = time.monotonic() + timeout
        output = Lines(on_line)
        self._cookie = new_cookie()
        own = {"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, **env, COOKIE: self._cookie}
        process = self._start(argv, cwd, {**clean_environment(), **own})
        self._process = process
        try:
            in_time = read_until_end(process, output, deadline)
        finally:
            _end_group(process)
            end_marked(self._cookie)
            self._process = None
            output.close()
            if process.stdout:
                process.stdout.close()
        raise_failure(argv, process.returncode if in_time else None, timeout, output)

    def kill(self) -> None:
        """End the running command and everything it started."""
        if self._process is not None:
            _end_group(self._process)
            end_marked(self._cookie)

    def _start(self, argv: Sequence[str], cwd: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
        if not cwd.is_dir():
            raise CommandError(argv, 127, [f"the folder {cwd} does not exist"])
        try:
            return subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        except FileNotFoundError as error:
            reason = f"{argv[0]!r} was not found: install it, or write its path relative to the source"
            raise CommandError(argv, 127, [reason]) from error
        except PermissionError as error:
            raise CommandError(argv, 126, [f"{argv[0]!r} is not executable: chmod +x it"]) from error


def raise_failure(argv: Sequence[str], code: int | None, timeout: float, output: Lines) -> None:
    """
    Report a command that did not end well; return when it did.

    :param code: with which it ended, ``None`` when it had to be ended
    :raises CommandError: it failed
    :raises CommandTimeoutError: it took too long
    """
    if code is None:
        raise CommandTimeoutError(argv, timeout, output.tail)
    if code:
        raise CommandError(argv, code, output.tail)


def read_until_end(process: subprocess.Popen[bytes], output: Lines, deadline: float) -> bool:
    """Hand on the output until the process ended; return whether that was before the deadline."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    listen_until = deadline
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while (now := time.monotonic()) < listen_until:
            if selector.select(min(0.2, listen_until - now)) and (chunk := _read(fd)) is not None:
                if not chunk:
                    break
                output.feed(chunk)
            elif process.poll() is not None and listen_until == deadline:
                # The command ended, but something it started still holds the pipe.
                listen_until = min(deadline, time.monotonic() + _LAST_WORDS_SECONDS)
    return wait(process, deadline)


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None


def wait(process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Return whether the process ended before the deadline."""
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: politely, then not."""
    _signal_group(process, signal.SIGTERM)
    if not wait(process, time.monotonic() + _GRACE_SECONDS):
        _signal_group(process, signal.SIGKILL)
        process.wait()
    # Grandchildren that ignored the first signal outlive their leader.
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _die_with_parent() -> Callable[[], None] | None:
    """Return what makes the kernel end a child when its parent dies (prctl(2), PR_SET_PDEATHSIG)."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None
    pr_set_pdeathsig = 1
    return lambda: prctl(pr_set_pdeathsig, signal.SIGKILL)
