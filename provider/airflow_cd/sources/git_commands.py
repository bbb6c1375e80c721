"""Calls git: argv lists, no prompts, no configuration of the machine or the repository's hooks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_cd.exceptions import SourceError

NETWORK_TIMEOUT = 300.0
_LOCAL_TIMEOUT = 120.0
_USER_INFO = re.compile(r"(\w+://)[^/@\s]+@")
# protocol.ext would run any command named in a URL; a repository chosen in services.yaml needs none of it.
_CONFIG = (
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "safe.directory=*",
    "gc.auto=0",
    "fetch.fsckObjects=false",
)


def git_argv(*args: str) -> list[str]:
    """Return the argv of a git command with the settings every call has."""
    options = [part for setting in _CONFIG for part in ("-c", setting)]
    return ["git", *options, *args]


def git_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a clean environment for git; ``extra`` carries credentials."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        **(extra or {}),
    }


def redacted(text: str) -> str:
    """Return the text with the user information of URLs taken out."""
    return _USER_INFO.sub(r"\1", text)


def git(
    *args: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout: float = _LOCAL_TIMEOUT,
) -> bytes:
    """
    Run git and return its output.

    :param env: added to the clean environment
    :raises SourceError: it failed, with git's own last words
    """
    try:
        ran = subprocess.run(
            git_argv(*args),
            cwd=cwd,
            env=git_env(env),
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
        )
    except FileNotFoundError as error:
        raise SourceError("git is not installed on this worker, or its PATH lacks it") from error
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"git {args[0]} took longer than {timeout:g} s and was ended") from error
    if ran.returncode:
        raise SourceError(f"git {args[0]} failed: {last_words(ran.stderr)}")
    return ran.stdout


async def ls_remote(
    repository: str, *, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> dict[str, str]:
    """
    Return branch name -> SHA of a remote, without blocking the event loop.

    :raises SourceError: the remote cannot be reached
    """
    process = await asyncio.create_subprocess_exec(
        *git_argv("ls-remote", "--heads", "--", repository),
        env=git_env(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    except asyncio.TimeoutError as error:
        raise SourceError(f"git ls-remote did not answer within {timeout:g} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise SourceError(f"git ls-remote failed: {last_words(err)}")
    return parse_heads(out)


def parse_heads(output: bytes) -> dict[str, str]:
    """Return branch name -> SHA from what ``git ls-remote`` printed."""
    heads = {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        sha, _, ref = line.partition("\t")
        if ref.startswith("refs/heads/") and re.fullmatch(r"[0-9a-f]{40}", sha):
            heads[ref.removeprefix("refs/heads/")] = sha
    return heads


def last_words(stderr: bytes | Sequence[str]) -> str:
    """Return what git said last that means something, without credentials."""
    text = stderr.decode("utf-8", "replace") if isinstance(stderr, bytes) else "\n".join(stderr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))] or lines[-1:]
    return redacted("; ".join(telling) or "it gave no reason")[:500]
