"""Credentials for git from an Airflow connection of type ``cd_git``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.sdk import BaseHook

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
        with _credentials(self.get_connection(self.conn_id)) as env:
            yield env

    def get_conn(self) -> Any:
        """Return the Airflow connection itself: git has no session to open."""
        return self.get_connection(self.conn_id)


@contextmanager
def _credentials(connection: Any) -> Iterator[dict[str, str]]:
    from airflow.sdk.log import mask_secret

    extra = connection.extra_dejson
    key = extra.get("private_key")
    with TemporaryDirectory(prefix="cd-git-") as folder:
        env: dict[str, str] = {}
        if connection.login or connection.password:
            mask_secret(connection.password)
            env["GIT_ASKPASS"] = str(_file(folder, "askpass", _ASKPASS, 0o700))
            env["CD_GIT_USERNAME"] = connection.login or "git"
            env["CD_GIT_PASSWORD"] = connection.password or ""
        if key:
            mask_secret(key)
            env["GIT_SSH_COMMAND"] = _ssh_command(folder, key, extra.get("known_hosts") or "")
        yield env


def _ssh_command(folder: str, key: str, known_hosts: str) -> str:
    identity = _file(folder, "identity", key.strip().replace("\r\n", "\n") + "\n", 0o600)
    hosts = _file(folder, "known_hosts", known_hosts + "\n", 0o600)
    options = [
        *("-i", str(identity), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={hosts}"),
    ]
    return shlex.join(["ssh", *options])


def _file(folder: str, name: str, content: str, mode: int) -> Path:
    path = Path(folder, name)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(content)
    return path
