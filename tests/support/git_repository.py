"""A real git repository to push to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

Content = str | bytes | None


class GitRepository:
    """
    A bare repository, and a clone in which commits are made and pushed from.

    :param folder: an empty folder; the bare repository becomes ``<folder>/<name>.git``
    """

    def __init__(self, folder: Path, name: str = "origin") -> None:
        self.bare = folder / f"{name}.git"
        self.work = folder / f"{name}-work"
        self.url = str(self.bare)
        run("init", "-q", "--bare", "--initial-branch=main", str(self.bare))
        run("init", "-q", "--initial-branch=main", str(self.work))
        self.git("remote", "add", "origin", self.url)
        self._seconds = 1_700_000_000

    def git(self, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Run git in the clone and return what it printed."""
        return run("-C", str(self.work), *args, stdin=stdin, env=env)

    def commit(
        self,
        files: Mapping[str, Content] | None = None,
        message: str | bytes = "change",
        *,
        author: str = "Ada",
        email: str = "ada@example.org",
        branch: str = "main",
        push: bool = True,
    ) -> str:
        """Write files (``None`` removes one), commit, push, and return the SHA."""
        if self.git("symbolic-ref", "--short", "HEAD").strip() != branch:
            self.git("checkout", "-q", "-B", branch)
        for name, content in (files or {}).items():
            self._write(name, content)
        self._seconds += 60
        identity = {
            **{f"GIT_{role}_NAME": author for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_EMAIL": email for role in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{role}_DATE": f"{self._seconds} +0000" for role in ("AUTHOR", "COMMITTER")},
        }
        text = message.encode() if isinstance(message, str) else message
        self.git("commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", "-", stdin=text, env=identity)
        if push:
            self.push(branch)
        return self.git("rev-parse", "HEAD").strip()

    def commit_raw(self, raw: bytes, branch: str) -> str:
        """Push a commit object that git's own tools would not write, and return its SHA."""
        argv = ("hash-object", "-t", "commit", "-w", "--stdin", "--literally")
        sha = self.git(*argv, stdin=raw).strip()
        self.push(f"{sha}:refs/heads/{branch}")
        return sha

    def push(self, *refs: str) -> None:
        """Push, by force when need be."""
        self.git("push", "-q", "--force", "origin", *refs)

    def forget(self, sha: str) -> None:
        """Make the remote lose a commit that no branch leads to."""
        run("-C", self.url, "reflog", "expire", "--all", "--expire=now")
        run("-C", self.url, "gc", "-q", "--prune=now")
        assert subprocess.run(["git", "-C", self.url, "cat-file", "-e", sha], capture_output=True).returncode

    def _write(self, name: str, content: Content) -> None:
        path = self.work / name
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all", "--", name)


def run(*args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """Run git without this machine's configuration. :raises AssertionError: it failed"""
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **(env or {})}
    ran = subprocess.run(["git", *args], input=stdin, capture_output=True, env=clean)
    assert ran.returncode == 0, ran.stderr.decode(errors="replace")
    return ran.stdout.decode("utf-8", "surrogateescape")
