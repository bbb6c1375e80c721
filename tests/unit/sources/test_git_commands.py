"""How git is called: with a clean environment, never for longer than allowed, and quiet about secrets."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.support.git_repository import GitRepository

from airflow_cd.exceptions import SourceError
from airflow_cd.sources.git_commands import git, git_env, last_words, ls_remote, parse_heads, redacted

SHA = "a" * 40


@pytest.fixture
def hanging_ssh(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Return the environment in which ssh starts a process that hangs, and the file with its pid."""
    script, pid = tmp_path / "ssh", tmp_path / "pid"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid}.part; mv {pid}.part {pid}; wait\n")
    script.chmod(0o755)
    return {"GIT_SSH": str(script), "GIT_SSH_COMMAND": str(script), "GIT_SSH_VARIANT": "simple"}, pid


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_nothing_of_the_workers_environment_reaches_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "s3cret")
    monkeypatch.setenv("GIT_SSH_COMMAND", "touch /tmp/x")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    env = git_env({"CD_GIT_PASSWORD": "given"})
    assert "AIRFLOW__CORE__FERNET_KEY" not in env
    assert env["GIT_SSH_COMMAND"].startswith("ssh -o BatchMode=yes")
    assert (env["https_proxy"], env["CD_GIT_PASSWORD"]) == ("http://proxy:3128", "given")


def test_a_command_that_hangs_is_ended_with_all_it_started(
    hanging_ssh: tuple[dict[str, str], Path],
) -> None:
    env, pid = hanging_ssh
    with pytest.raises(SourceError, match="git ls-remote took longer than 2 s and was ended"):
        git("ls-remote", "ssh://git@host/x.git", env=env, timeout=2)
    assert eventually(lambda: is_gone(int(pid.read_text())))


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_git_ends_with_a_worker_that_is_killed(hanging_ssh: tuple[dict[str, str], Path]) -> None:
    env, pid = hanging_ssh
    code = "import json, sys; from airflow_cd.sources.git_commands import git\n"
    code += "git('ls-remote', 'ssh://git@host/x.git', env=json.loads(sys.argv[1]))"
    worker = subprocess.Popen([sys.executable, "-c", code, json.dumps(env)])
    try:
        assert eventually(pid.exists)
        (git_itself,) = psutil.Process(worker.pid).children()
    finally:
        worker.kill()
        worker.wait()
    try:
        assert eventually(lambda: is_gone(git_itself.pid))
    finally:
        for left in (git_itself.pid, int(pid.read_text())):
            with suppress(psutil.Error):
                psutil.Process(left).kill()


async def test_a_listing_that_hangs_is_ended_with_all_it_started(
    hanging_ssh: tuple[dict[str, str], Path],
) -> None:
    env, pid = hanging_ssh
    with pytest.raises(SourceError, match="did not answer within 2 s"):
        await ls_remote("ssh://git@host/x.git", env=env, timeout=2)
    assert eventually(lambda: is_gone(int(pid.read_text())))


async def test_a_cancelled_listing_leaves_nothing_running(hanging_ssh: tuple[dict[str, str], Path]) -> None:
    env, pid = hanging_ssh
    task = asyncio.create_task(ls_remote("ssh://git@host/x.git", env=env))
    assert await asyncio.to_thread(eventually, pid.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: is_gone(int(pid.read_text())))


async def test_heads_are_listed(repository: GitRepository) -> None:
    first = repository.commit()
    second = repository.commit(branch="release/1.x")
    repository.git("tag", "v1.0.0")
    repository.push("v1.0.0")
    assert await ls_remote(repository.url) == {"main": first, "release/1.x": second}


def test_odd_branch_names_are_data() -> None:
    odd = f"refs/heads/x\u2028{SHA}\x85$(id)"
    listing = f"{SHA}\trefs/heads/main\n{'b' * 40}\t{odd}\nwarning: \trefs/heads/no\n{SHA}\trefs/tags/v1\n"
    assert parse_heads(listing.encode()) == {"main": SHA, odd.removeprefix("refs/heads/"): "b" * 40}


def test_a_missing_git_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="git is not installed.*install git"):
        git("version")


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("fatal: https://user:pw@host/x.git", "fatal: https://host/x.git"),
        ("fatal: https://user:p@w@host/x.git gone", "fatal: https://host/x.git gone"),
        ("see https://host/a@b", "see https://host/a@b"),
    ],
)
def test_user_information_is_taken_out(text: str, public: str) -> None:
    assert redacted(text) == public


def test_last_words_are_those_that_mean_something() -> None:
    said = (
        b"Cloning...\nssh: connect to host h port 22: Connection refused\n\x1b[31mfatal: Could not read.\n\n"
        b"Please make sure you have the correct access rights\nand the repository exists.\n"
    )
    assert last_words(said) == (
        "Cloning...; ssh: connect to host h port 22: Connection refused; [31mfatal: Could not read."
    )
    assert last_words(b"\n") == "it gave no reason"
    assert last_words(b"fatal: no access to https://user:pw@host/") == "fatal: no access to https://host/"
