"""Calls git: argv lists, no prompts, no configuration of the machine, no hooks, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from airflow_cd.exceptions import SourceError
from airflow_cd.model.repository_url import without_login
from airflow_cd.model.text import printable
from airflow_cd.processes.deadline import within

# The first fetch of a large repository takes its time; a connection that went silent is ended long before.
FETCH_TIMEOUT = 1800.0
ASK_TIMEOUT = 60.0
_REAPED_SECONDS = 5.0
_LOCAL_TIMEOUT = 600.0
_CONFIG = (
    # protocol.ext would run any command named in a URL; a repository in services.yaml needs none of it.
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "safe.directory=*",
    # Housekeeping happens within a fetch, under its lock, and not behind its back.
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
)
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15"
# What a machine needs to reach its remotes at all. Nothing else of a worker's environment reaches git.
_INHERITED = (
    *("PATH", "HOME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
# Also with a slash in the password, where it is no port that follows the colon.
_USER_INFO = re.compile(r"(\w+://)(?:[^/\s'\"]+@|[^/\s:@'\"]+:(?!\d+/)[^\s'\"]*@)")
_TOKEN = re.compile(
    r"([?&][^=&\s'\"]*(?:token|key|secret|password|sig|auth)[^=&\s'\"]*=)[^&\s'\"]+", re.IGNORECASE
)
_LONGEST_LINE = 300
# Run by a shell, and so without anything that is not written here. Only a user name: git asks for the rest.
_USER_HELPER = """!f() { printf 'username=%s\\n' "$CD_GIT_URL_USERNAME"; }; f"""
_PASSWORD_HELPER = (
    """!f() { printf 'username=%s\\npassword=%s\\n' "$CD_GIT_URL_USERNAME" "$CD_GIT_URL_PASSWORD"; }; f"""
)
# A million branches are 80 MB.
_LONGEST_OUTPUT = 256 * 1024 * 1024
_LONGEST_LISTING = 32 * 1024 * 1024
_LONGEST_COMPLAINT = 64 * 1024
_CHUNK = 1 << 16
# What git adds to every failure of a remote.
_BOILERPLATE = ("hint:", "warning:", "please make sure you have", "and the repository exists")


class GitTimeoutError(SourceError):
    """Raised when git took longer than allowed; it was ended, with all it started."""


class GitOutputError(SourceError):
    """Raised when git has more to say than is read; it was ended."""


class BrokenMirrorError(SourceError):
    """Raised when a mirror cannot be read; all it holds can be fetched again."""


def git_argv(*args: str) -> list[str]:
    """Return the argv of a git command with the settings every call has."""
    options = [part for setting in _CONFIG for part in ("-c", setting)]
    return [*_until_this_process_ends(), "git", *options, *args]


def _until_this_process_ends() -> tuple[str, ...]:
    """
    Return the program that makes git end with this process, also when that is killed, where there is one.

    The kernel does that (``PR_SET_PDEATHSIG``) when the thread ends that started git: here, the one that
    waits for it. Not by code between fork and exec, as for build commands: the triggerer has many threads.
    The ``setpriv`` of BusyBox cannot.
    """
    tool = shutil.which("setpriv") if sys.platform == "linux" and shutil.which("git") else None
    if tool is None or Path(tool).resolve().name == "busybox":
        return ()
    return tool, "--pdeathsig", "KILL", "--"


def remote_argv(command: str, repository: str, *args: str) -> list[str]:
    """
    Return ``command``, its options and the repository, for commands that talk to a remote.

    A login in the repository's URL is left out, since everybody on the machine can read argv; see
    :func:`login_env`.
    """
    repository, _, _ = without_login(repository)
    # git does not pass safe.directory on to the process that reads a repository on this machine, so that
    # one owned by another user would be refused, whatever the machine's configuration says.
    local = repository.startswith(("/", "file:"))
    reader = ["--upload-pack=git -c 'safe.directory=*' upload-pack"] if local else []
    return [command, *reader, *args, "--", repository]


def git_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a clean environment for git; ``extra`` carries credentials."""
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_SSH_COMMAND": _SSH,
        **(extra or {}),
    }


def login_env(repository: str) -> dict[str, str]:
    """Return the environment variables that give git the login of a repository's URL, if it has one."""
    address, user, password = without_login(repository)
    if not user and not password:
        return {}
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"credential.{'/'.join(address.split('/')[:3])}.helper",
        "GIT_CONFIG_VALUE_0": _PASSWORD_HELPER if password else _USER_HELPER,
        "CD_GIT_URL_USERNAME": user,
        "CD_GIT_URL_PASSWORD": password,
    }


def redacted(text: str) -> str:
    """Return the text with the user information and the tokens of URLs taken out."""
    return _TOKEN.sub(r"\1***", _USER_INFO.sub(r"\1", text))


def git(
    *args: str,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = _LOCAL_TIMEOUT,
    longest: int = _LONGEST_OUTPUT,
) -> bytes:
    """
    Run git and return its output.

    :param folder: the bare repository it works on; without it git would look for one in the folders above
    :param env: added to the clean environment
    :param timeout: seconds
    :param longest: bytes of output at most
    :raises SourceError: it failed, with git's own last words
    :raises GitTimeoutError: it took too long
    :raises GitOutputError: it has more to say
    """
    place = {} if folder is None else {"GIT_DIR": str(folder)}
    try:
        process = subprocess.Popen(
            git_argv(*args),
            cwd="/",
            env=git_env({**place, **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SourceError(_NO_GIT) from error
    try:
        out, err = _outputs(process, args[0], time.monotonic() + timeout, longest)
        process.wait(_REAPED_SECONDS)
    except TimeoutError as error:
        raise GitTimeoutError(f"git {args[0]} took longer than {timeout:g} s and was ended") from error
    finally:
        if process.returncode is None:
            _kill(process.pid)
            process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    if process.returncode:
        raise SourceError(f"git {args[0]} failed: {last_words(err)}")
    return out


def _outputs(process: subprocess.Popen[bytes], command: str, end: float, longest: int) -> tuple[bytes, bytes]:
    """Read both outputs until they end; of what git complains about, only the end is kept."""
    assert process.stdout is not None and process.stderr is not None
    out, err = bytearray(), b""
    with DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(pipe, EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(end - time.monotonic(), 0))
            if not ready and time.monotonic() >= end:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    out += chunk
                else:
                    err = (err + chunk)[-_LONGEST_COMPLAINT:]
            if len(out) > longest:
                raise GitOutputError(f"git {command} has more than {longest >> 20} MiB to say")
    return bytes(out), err


async def ls_remote(
    repository: str, *, env: Mapping[str, str] | None = None, timeout: float = ASK_TIMEOUT
) -> dict[str, str]:
    """
    Return branch name -> SHA of a remote, without blocking the event loop.

    :raises SourceError: the remote cannot be reached
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *git_argv(*remote_argv("ls-remote", repository, "--heads")),
            cwd="/",
            env=git_env({**login_env(repository), **(env or {})}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SourceError(_NO_GIT) from error
    try:
        out, err = await within(timeout, _all_of(process))
    except asyncio.TimeoutError as error:
        raise GitTimeoutError(f"git ls-remote did not answer within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            _kill(process.pid)
            # What git left behind, such as the master of an ssh connection, may keep its pipes open.
            with suppress(asyncio.TimeoutError):
                await within(_REAPED_SECONDS, process.wait())
    if process.returncode:
        raise SourceError(f"git ls-remote failed: {last_words(err)}")
    return parse_heads(out)


async def _all_of(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """Read both outputs of ``git ls-remote``, and wait for its end."""

    async def read(stream: asyncio.StreamReader | None, longest: int, *, refuse: bool) -> bytes:
        assert stream is not None
        kept = bytearray()
        while chunk := await stream.read(_CHUNK):
            kept += chunk
            if len(kept) > longest and refuse:
                raise GitOutputError(f"git ls-remote has more than {longest >> 20} MiB to say")
            del kept[:-longest]
        return bytes(kept)

    complaints = asyncio.ensure_future(read(process.stderr, _LONGEST_COMPLAINT, refuse=False))
    try:
        out = await read(process.stdout, _LONGEST_LISTING, refuse=True)
        err = await complaints
    finally:
        complaints.cancel()
    await process.wait()
    return out, err


def parse_heads(output: bytes) -> dict[str, str]:
    """Return branch name -> SHA from what ``git ls-remote`` printed."""
    heads = {}
    # Not splitlines(): a branch name may hold what Unicode calls a line separator.
    for line in output.split(b"\n"):
        sha, _, ref = line.decode("utf-8", "replace").partition("\t")
        if re.fullmatch(r"[0-9a-f]{64}", sha):
            raise SourceError(
                "the repository names its objects by SHA-256, which is not supported; use SHA-1"
            )
        if ref.startswith("refs/heads/") and re.fullmatch(r"[0-9a-f]{40}", sha):
            heads[ref.removeprefix("refs/heads/")] = sha
    return heads


def last_words(stderr: bytes) -> str:
    """Return what git said last that means something, on one line and without credentials."""
    # Servers colour what they say; what would be replaced here says nothing.
    said = stderr.decode("utf-8", "replace").splitlines()
    lines = [printable(line, _LONGEST_LINE).replace("\ufffd", " ").strip() for line in said]
    telling = [line for line in lines if line and not line.lower().startswith(_BOILERPLATE)]
    return redacted("; ".join(telling[-3:]) or "it gave no reason")[:500]


_NO_GIT = "git is not installed on this machine, or PATH lacks it; install git"


def _kill(pid: int) -> None:
    """End git and what it started, such as the program that talks http or ssh."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
