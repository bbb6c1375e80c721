"""Credentials for git from an Airflow connection of type ``cd_git``."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.log import amask_secret, mask_secret

from airflow_cd.processes.private_folder import private_folder

# git asks this program for the user name and for the password; it prints what its environment holds, so
# that neither is in an argv, in a URL or on disk.
_ASKPASS = """#!/bin/sh
case "$1" in
  Username*) printf '%s' "$CD_GIT_USERNAME" ;;
  *) printf '%s' "$CD_GIT_PASSWORD" ;;
esac
"""


class GitHook(BaseHook):
    """
    Gives git the credentials of a connection.

    User name and password (or token) serve http(s); ``private_key`` and ``known_hosts`` serve ssh, where a
    host that is not listed is refused.

    There is no ``test_connection``: a connection holds credentials, and which repository they are for
    stands in the service's source.

    :param conn_id: an Airflow connection of type ``cd_git``
    """

    conn_name_attr = "conn_id"
    default_conn_name = "cd_git_default"
    conn_type = "cd_git"
    hook_name = "Git repository (CD)"

    def __init__(self, conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.conn_id = conn_id

    @contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        """Give the environment variables for git; what they point to is gone afterwards."""
        connection = self.get_connection(self.conn_id)
        for secret in _secrets(connection):
            mask_secret(secret)
        with _credentials(connection) as env:
            yield env

    @asynccontextmanager
    async def aenvironment(self) -> AsyncIterator[dict[str, str]]:
        """Do the same as :meth:`environment` in the triggerer, without blocking its event loop."""
        connection = await self.aget_connection(self.conn_id)
        for secret in _secrets(connection):
            await amask_secret(secret)
        with _credentials(connection) as env:
            yield env

    def get_conn(self) -> Any:
        """Return the Airflow connection itself: git has no session to open."""
        return self.get_connection(self.conn_id)


def _secrets(connection: Any) -> list[str]:
    return [value for value in (connection.password, connection.extra_dejson.get("private_key")) if value]


@contextmanager
def _credentials(connection: Any) -> Iterator[dict[str, str]]:
    extra = connection.extra_dejson
    key, known_hosts = extra.get("private_key"), extra.get("known_hosts")
    with private_folder("git") as folder:
        env: dict[str, str] = {}
        if connection.login or connection.password:
            env["GIT_ASKPASS"] = str(_file(folder, "askpass", _ASKPASS, 0o700))
            env["CD_GIT_USERNAME"] = connection.login or "git"
            env["CD_GIT_PASSWORD"] = connection.password or ""
        if key or known_hosts:
            env["GIT_SSH_COMMAND"] = _ssh_command(folder, key, known_hosts or "")
        yield env


def _ssh_command(folder: Path, key: str | None, known_hosts: str) -> str:
    hosts = _file(folder, "known_hosts", _lines(known_hosts), 0o600)
    argv = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"]
    argv += ["-o", "StrictHostKeyChecking=yes", "-o", f'UserKnownHostsFile="{hosts}"']
    argv += ["-o", "GlobalKnownHostsFile=/dev/null"]
    if key:
        identity = _file(folder, "identity", _lines(key), 0o600)
        argv += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
    return shlex.join(argv)


def _lines(text: str) -> str:
    """Forms send other line ends, and drop the last one, which ssh insists on."""
    return text.replace("\r\n", "\n").strip() + "\n"


def _file(folder: Path, name: str, content: str, mode: int) -> Path:
    path = Path(folder, name)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(content)
    return path
