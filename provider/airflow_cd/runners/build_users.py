"""Runs commands as processes of the worker's machine, as users that can read nothing of the worker's."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from airflow_cd.exceptions import CommandError, RunnerError
from airflow_cd.processes.build_users import BuildUser, borrowed
from airflow_cd.processes.environment import SOURCE_DATE_EPOCH, clean_environment
from airflow_cd.runners import command_guard
from airflow_cd.runners.lines import Lines
from airflow_cd.runners.subprocess import raise_failure, read_until_end, wait
from airflow_cd.runners.workspace import pack, unpack

log = logging.getLogger(__name__)

# Longer than a guard takes to end a command that ignores the first signal, and all it started.
_END_SECONDS = 25.0
_ENGINE_SOCKET = "/var/run/docker.sock"
_CLEAR_SECONDS = 300.0
_COPY_SECONDS = 1800.0


class BuildUsersRunner:
    """
    Runs the commands of a job as a user of the operating system that no other job has meanwhile.

    The kernel keeps such a user from the memory, environment and files of the worker, its tasks and other
    builds. The workspace is copied into the user's home folder and back, as into a container. Nothing of a
    job stays: all processes of its user end with each command, and its files with the job.

    :param users: one is borrowed for each job
    """

    def __init__(self, users: Sequence[BuildUser]) -> None:
        self._users = users
        self._user: BuildUser | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def job(self, name: str, folder: Path) -> Iterator[None]:
        """Copy the folder to a free user's home, and back when the commands are done or one failed."""
        with borrowed(self._users, lambda: log.info("Waiting for a build user that is free")) as user:
            _clear(user)
            try:
                _copy_in(user, folder)
                self._user = user
                try:
                    yield
                except CommandError:
                    _copy_back(user, folder)
                    raise
                else:
                    _copy_back(user, folder)
            finally:
                self._user = None
                with suppress(RunnerError):  # the next job begins with it, and says what is wrong
                    _clear(user)

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
        user = self._user
        assert user is not None, "commands run inside a job"
        deadline = time.monotonic() + timeout
        output = Lines(on_line)
        process = self._process = _start(
            user,
            _guard(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            _open_to_all(process.stdout)
            own = {"HOME": str(user.home / "home"), "TMPDIR": str(user.home / "tmp")}
            _ask(
                process,
                do="run",
                uid=user.uid,
                argv=list(argv),
                cwd=str(user.home / "workspace"),
                env={**clean_environment(), **own, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, **env},
            )
            in_time = read_until_end(process, output, deadline)
        finally:
            self.kill()
            self._process = None
            output.close()
            if process.stdout:
                process.stdout.close()
        raise_failure(argv, process.returncode if in_time else None, timeout, output)

    def kill(self) -> None:
        """
        End the running command and everything it started.

        :raises RunnerError: what ends it does not end
        """
        process = self._process
        if process is None:
            return
        if process.stdin and not process.stdin.closed:
            with suppress(BrokenPipeError):
                process.stdin.close()
        if not wait(process, time.monotonic() + _END_SECONDS):
            raise RunnerError(f"a command of {_named(self._user)} does not end; end it by hand")


def _guard() -> list[str]:
    # Isolated (-I, -S): no module of a workspace, a home folder or the worker's packages is imported.
    return [
        sys.executable,
        "-I",
        "-S",
        "-W",
        "ignore",
        "-c",
        Path(command_guard.__file__).read_text(encoding="utf-8"),
    ]


def _ask(process: subprocess.Popen[bytes], **request: Any) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it could not start; its output says why
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()


def _open_to_all(pipe: IO[bytes] | None) -> None:
    """Let a command open ``/dev/stdout``, as scripts do: a pipe belongs to the user who made it."""
    assert pipe is not None
    os.fchmod(pipe.fileno(), 0o666)


def _start(user: BuildUser, argv: Sequence[str], **pipes: Any) -> subprocess.Popen[bytes]:
    """
    Start a command as this user, outside of the worker's session and without its environment.

    :raises RunnerError: what changes the user is missing
    """
    switch = user.command(argv)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    try:
        return subprocess.Popen(switch, cwd="/", env=environment, start_new_session=True, **pipes)
    except FileNotFoundError as error:
        raise RunnerError(
            f"commands cannot run as {_named(user)}: {switch[0]!r} was not found; install it on the worker"
        ) from error


def _run_to_end(user: BuildUser, argv: Sequence[str], what: str, seconds: float, **options: Any) -> None:
    """
    Run something of ours as this user.

    :raises RunnerError: it failed; the message has what it said
    """
    data: bytes | None = options.pop("data", None)
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **options}
    process = _start(user, argv, stderr=subprocess.PIPE, **pipes)
    try:
        said = process.communicate(data, timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        raise RunnerError(f"{what} {_named(user)} takes longer than {seconds:g} s") from None
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()[-3:] or [
            f"exit code {process.returncode}"
        ]
        raise RunnerError(
            f"{what} {_named(user)} failed: {'; '.join(lines)}; "
            "`sudo -n -u` of the worker must be allowed for the members of [cd] build_group, "
            "and their home folders must be theirs alone"
        )


def _clear(user: BuildUser) -> None:
    request = {"do": "clear", "uid": user.uid, "home": str(user.home), "closed": _engine_sockets()}
    data = json.dumps(request).encode() + b"\n"
    _run_to_end(user, _guard(), "clearing the place of", _CLEAR_SECONDS, stdin=subprocess.PIPE, data=data)


def _engine_sockets() -> list[str]:
    """Return what must not be open to a build: numbers of groups can be the same by accident."""
    host = os.environ.get("DOCKER_HOST", "")
    return [_ENGINE_SOCKET, *([host.removeprefix("unix://")] if host.startswith("unix://") else [])]


def _copy_in(user: BuildUser, folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        pack(folder, file, f"{user.uid}:{user.gid}")
        file.seek(0)
        tar = ["tar", "--extract", "--preserve-permissions", "--file=-", f"--directory={user.home}"]
        _run_to_end(user, tar, "copying the workspace to", _COPY_SECONDS, stdin=file)


def _copy_back(user: BuildUser, folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        tar = ["tar", "--create", "--file=-", f"--directory={user.home}", "workspace"]
        _run_to_end(user, tar, "copying the workspace back from", _COPY_SECONDS, stdout=file)
        file.seek(0)
        unpack(file, folder)


def _named(user: BuildUser | None) -> str:
    return f"the build user {user.name}" if user else "a build user"
