"""Credentials of a connection reach git, and nothing else."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer

from airflow_cd.exceptions import SourceError
from airflow_cd.hooks.git import GitHook
from airflow_cd.sources.git import GitSource
from airflow_cd.sources.git_commands import ls_remote

PASSWORD = "s3cret/'\"$(id) %@"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\r\nabc\r\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path, login=f"ada:{PASSWORD}").running() as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path)


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> GitHook:
    monkeypatch.setenv("AIRFLOW_CONN_HELLO_GIT", json.dumps({"conn_type": "cd_git", **fields}))
    return GitHook("hello_git")


def test_the_password_opens_the_repository(
    monkeypatch: pytest.MonkeyPatch, server: GitServer, repository: GitRepository, tmp_path: Path
) -> None:
    sha = repository.commit(message="private")
    hook = connect(monkeypatch, login="ada", password=PASSWORD)
    with hook.environment() as env:
        source = GitSource(f"{server.url}/origin.git", cache_dir=tmp_path / "cache", env=env)
        assert source.head("main") == sha
        assert source.revision(sha).subject == "private"
    stored = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not any(b"s3cret" in content for content in stored)


async def test_the_password_opens_the_repository_in_the_triggerer(
    monkeypatch: pytest.MonkeyPatch, server: GitServer, repository: GitRepository
) -> None:
    sha = repository.commit()
    async with connect(monkeypatch, login="ada", password=PASSWORD).aenvironment() as env:
        assert await ls_remote(f"{server.url}/origin.git", env=env) == {"main": sha}
        script = Path(env["GIT_ASKPASS"])
    assert not script.exists()


def test_a_wrong_password_is_refused_without_being_told(
    monkeypatch: pytest.MonkeyPatch, server: GitServer, repository: GitRepository, tmp_path: Path
) -> None:
    repository.commit()
    with (
        connect(monkeypatch, login="ada", password="wr0ng-one").environment() as env,
        pytest.raises(SourceError, match="Authentication failed") as caught,
    ):
        GitSource(f"{server.url}/origin.git", cache_dir=tmp_path / "cache", env=env).head("main")
    assert "wr0ng-one" not in repr(caught.value) + repr(caught.value.__cause__)


def test_a_token_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(monkeypatch, password="t0ken").environment() as env:
        asked = [
            subprocess.run([env["GIT_ASKPASS"], prompt], env=env, capture_output=True, text=True).stdout
            for prompt in ("Username for 'https://host': ", "Password for 'https://git@host': ")
        ]
    assert asked == ["git", "t0ken"]


def test_secrets_are_in_no_file_but_the_key_and_files_are_private(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect(monkeypatch, login="ada", password="s3cret", extra={"private_key": KEY})
    with hook.environment() as env:
        folder = Path(env["GIT_ASKPASS"]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes == {"askpass": 0o700, "identity": 0o600, "known_hosts": 0o600}
        assert (folder / "identity").read_bytes() == KEY.replace("\r\n", "\n").encode() + b"\n"
        assert "s3cret" not in (folder / "askpass").read_text()
    assert not folder.exists()


def test_files_are_removed_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(RuntimeError),
        connect(monkeypatch, login="ada", password="s3cret").environment() as env,
    ):
        raise RuntimeError
    assert not Path(env["GIT_ASKPASS"]).parent.exists()


def test_ssh_knows_only_the_listed_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"private_key": KEY, "known_hosts": "host.example ssh-ed25519 AAAA\r\n"}
    with connect(monkeypatch, extra=extra).environment() as env:
        argv = shlex.split(env["GIT_SSH_COMMAND"])
        said = subprocess.run([*argv, "-G", "host.example"], capture_output=True, text=True, check=True)
        options = dict(line.split(" ", 1) for line in said.stdout.splitlines() if " " in line)
        folder = Path(options["identityfile"]).parent
        assert (folder / "known_hosts").read_bytes() == b"host.example ssh-ed25519 AAAA\n"
        assert options["userknownhostsfile"] == str(folder / "known_hosts")
    assert options["globalknownhostsfile"] == "/dev/null"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert (options["batchmode"], options["identitiesonly"]) == ("yes", "yes")
    assert set(env) == {"GIT_SSH_COMMAND"}


def test_known_hosts_serve_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(monkeypatch, extra={"known_hosts": "host ssh-ed25519 AAAA"}).environment() as env:
        assert "StrictHostKeyChecking=yes" in env["GIT_SSH_COMMAND"]
        assert " -i " not in env["GIT_SSH_COMMAND"]


def test_a_connection_without_credentials_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(monkeypatch).environment() as env:
        assert env == {}
