"""A bare mirror of a repository: a cache that is rebuilt whenever it is missing or broken."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.model.repository_url import public_url
from airflow_cd.processes.disk import NO_SPACE
from airflow_cd.sources.git_commands import (
    ASK_TIMEOUT,
    FETCH_TIMEOUT,
    BrokenMirrorError,
    GitTimeoutError,
    git,
    login_env,
    parse_heads,
    remote_argv,
)

# How remotes say that they do not have, or do not give, a commit.
_MISSING = (
    *("not our ref", "couldn't find remote ref", "no such remote ref", "cannot obtain needed object"),
    "unadvertised object",
)
# Answers that another try does not change.
_PERMANENT = (
    *_MISSING,
    *NO_SPACE,
    *("not found", "does not exist", "not installed"),
    *("does not appear to be a git repository", "authentication failed", "permission denied"),
    *("could not read username", "could not read password", "host key verification failed"),
    *("access denied", "unable to find remote helper", "not allowed"),
    *("returned error: 401", "returned error: 403", "returned error: 404", "not valid: is this a git"),
)


def is_about_missing(error: SourceError) -> bool:
    """Return whether the remote said that it does not have, or does not give, what was asked for."""
    return any(words in str(error).lower() for words in _MISSING)


def _is_transient(error: BaseException) -> bool:
    if not isinstance(error, SourceError) or isinstance(error, GitTimeoutError):
        return False
    return not any(words in str(error).lower() for words in _PERMANENT)


_retrying = retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_attempt(4),
    wait=wait_exponential(multiplier=0.3, max=5) + wait_random(0, 0.3),
    reraise=True,
)


class Remote:
    """
    A repository somewhere else.

    :param repository: what git can read
    :param env: credentials for git
    :raises SourceError: this is nothing git could read
    """

    def __init__(self, repository: str, env: Mapping[str, str] | None = None) -> None:
        if repository.startswith("-"):
            raise SourceError(f"{repository!r} is not a repository: it starts with a dash; write its URL")
        self.repository = repository
        self._env = env

    def heads(self) -> dict[str, str]:
        """
        Return branch name -> SHA as it has them now.

        :raises SourceError: it does not answer
        """
        argv = remote_argv("ls-remote", self.repository, "--heads")
        return parse_heads(self._ask(*argv, timeout=ASK_TIMEOUT))

    def fetch(self, folder: Path, *options: str, specs: tuple[str, ...]) -> None:
        """
        Bring commits into a repository here.

        :param folder: that repository
        :param specs: which refs, and under which names
        :raises SourceError: it does not answer, or does not have them; see :func:`is_about_missing`
        """
        argv = remote_argv("fetch", self.repository, "--quiet", "--no-write-fetch-head", *options)
        self._ask(*argv, *specs, folder=folder, timeout=FETCH_TIMEOUT)

    @_retrying
    def _ask(self, *args: str, timeout: float, folder: Path | None = None) -> bytes:
        try:
            env = {**login_env(self.repository), **(self._env or {})}
            return git(*args, folder=folder, env=env, timeout=timeout)
        except SourceError as error:
            raise type(error)(f"{public_url(self.repository)}: {error}") from error


def mirror_name(repository: str) -> str:
    """Return what a repository's mirror is called."""
    return hashlib.sha256(repository.encode()).hexdigest()[:20]


T = TypeVar("T")
_SHA = re.compile(r"[0-9a-f]{40}")
_EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


class Mirror:
    """
    The mirror of one repository, shared by all services and processes of this machine.

    Processes write under a file lock and read without one. Commits that were asked for are kept by a ref of
    their own, ``refs/cd/taken/<sha>``: a force push and a clean-up do not take them away.

    :param repository: what git can read
    :param cache_dir: where mirrors lie
    :param env: credentials for git
    """

    def __init__(self, repository: str, cache_dir: Path, env: Mapping[str, str] | None = None) -> None:
        self._remote = Remote(repository, env)
        self.repository = repository
        name = mirror_name(repository)
        self.folder = cache_dir.absolute() / f"{name}.git"
        self._lock = FileLock(cache_dir.absolute() / f"{name}.lock")
        # Commits that were found in the mirror of this identity: each question is a process of git, and a
        # build asks for the same one many times.
        self._known: set[tuple[int, str]] = set()

    def heads(self) -> dict[str, str]:
        """
        Return branch name -> SHA as the remote has them now.

        :raises SourceError: it does not answer
        """
        return self._remote.heads()

    def git(self, *args: str) -> bytes:
        """
        Run git on the mirror.

        :raises BrokenMirrorError: it failed
        """
        try:
            return git(*args, folder=self.folder)
        except GitTimeoutError:
            raise  # a slow disk is no reason to throw the mirror away
        except SourceError as error:
            raise BrokenMirrorError(f"the mirror {self.folder} cannot be read: {error}") from error

    def reading(self, read: Callable[[], T], *commits: str) -> T:
        """
        Return what ``read`` returns, with these commits in the mirror.

        When the mirror turns out broken, it is created again and read once more.

        :raises RevisionNotFoundError: the repository has no such commit
        :raises SourceError: the remote cannot be reached
        """
        for sha in commits:
            self.take(sha)
        age = self._identity()
        try:
            return read()
        except BrokenMirrorError:
            with self._lock:
                if self._identity() == age:  # no other process has rebuilt it meanwhile
                    self._make()
            for sha in commits:
                self.take(sha)
            return read()

    def take(self, sha: str) -> None:
        """
        Have the commit in the mirror and keep it. A commit that is there already needs no network.

        :raises RevisionNotFoundError: it is not a full SHA, or the repository has no such commit
        :raises SourceError: the remote cannot be reached
        """
        if not _SHA.fullmatch(sha):
            raise RevisionNotFoundError(f"{sha[:80]!r} is not a full commit SHA (40 hexadecimal digits)")
        known = (self._identity(), sha)
        if known in self._known:
            return
        with suppress(OSError):  # there is none yet, or it belongs to another user
            os.utime(self.folder)  # says that it is used: see airflow_cd.sources.stale_mirrors
        if self._is_taken(sha):
            self._known.add(known)
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            try:
                self._repair()
                self._bring(sha)
            except SourceError as error:
                if _is_about_space(error):
                    # Nothing is wrong with the mirror, and there is no room for another one.
                    raise self._no_space(error) from error
                if self._is_whole():
                    raise
                self._make()
                self._bring(sha)
            self._known.add((self._identity(), sha))

    def forget(self, needed: Collection[str], older_than: timedelta, *, dry_run: bool = False) -> int:
        """
        Stop keeping commits that were asked for long ago, and return how many.

        Those that a branch leads to stay in the mirror; git removes the others some weeks later. One that is
        asked for again is kept again.

        :param needed: SHAs of commits that are kept in any case
        :raises SourceError: the mirror cannot be read
        """
        if not self.folder.exists():
            return 0
        with self._lock:
            listed = git("for-each-ref", "--format=%(refname)", _taken(""), folder=self.folder)
            old = [
                ref
                for ref in listed.decode().split()
                if ref.rpartition("/")[2] not in needed and self._age_of(ref) > older_than.total_seconds()
            ]
            for ref in () if dry_run else old:
                git("update-ref", "-d", ref, folder=self.folder)
        return len(old)

    def _age_of(self, ref: str) -> float:
        """Return for how many seconds, at least, there has been such a reference."""
        for file in (self.folder / ref, self.folder / "packed-refs"):
            with suppress(FileNotFoundError):
                return time.time() - file.stat().st_mtime
        return 0

    def _bring(self, sha: str) -> None:
        if not self._has(sha):
            self._remote.fetch(self.folder, "--prune", specs=_EVERYTHING)
        if self._has(sha):
            git("update-ref", _taken(sha), sha, folder=self.folder)
            return
        try:
            self._remote.fetch(self.folder, "--no-tags", specs=(f"{sha}:{_taken(sha)}",))
        except SourceError as error:
            if not is_about_missing(error):
                raise
            raise RevisionNotFoundError(
                f"{public_url(self.repository)} has no commit {sha}; "
                "it may have been force-pushed away: release the branch's present head instead"
            ) from error
        if not self._is_taken(sha):
            git("update-ref", "-d", _taken(sha), folder=self.folder)
            raise RevisionNotFoundError(f"{sha} is in {public_url(self.repository)}, but it is not a commit")

    def _has(self, sha: str) -> bool:
        """Only what a ref leads to is complete: a killed fetch leaves commits without their files."""
        try:
            if git("cat-file", "-t", sha, folder=self.folder).strip() != b"commit":
                return False
            return bool(git("for-each-ref", "--count=1", f"--contains={sha}", folder=self.folder).strip())
        except SourceError:
            return False

    def _is_taken(self, sha: str) -> bool:
        if not self.folder.exists():
            return False
        try:
            found = git("rev-parse", "--verify", "--quiet", f"{_taken(sha)}^{{commit}}", folder=self.folder)
        except SourceError:
            return False
        return found.decode().strip() == sha

    def _is_whole(self) -> bool:
        try:
            git("fsck", "--connectivity-only", "--no-dangling", "--no-progress", folder=self.folder)
        except GitTimeoutError:
            return True
        except SourceError:
            return False
        return True

    def _repair(self) -> None:
        """Make the mirror when it is missing, and take away what a killed writer left."""
        try:
            git("rev-parse", "--git-dir", folder=self.folder)
        except SourceError:
            self._make()
        # We hold the lock, so nobody works under these; git would refuse to go on because of them.
        leftovers = (self.folder.rglob("*.lock"), (self.folder / "objects").rglob("tmp_*"))
        for stale in chain.from_iterable(leftovers):
            if stale.is_file():
                stale.unlink(missing_ok=True)

    def _make(self) -> None:
        """Make an empty mirror in the place of what is there."""
        new, old = self.folder.with_suffix(".new"), self.folder.with_suffix(".old")
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        git("init", "--quiet", "--bare", "--template=", "--", str(new))
        if self.folder.exists():
            self.folder.rename(old)
        new.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _no_space(self, error: SourceError) -> SourceError:
        return SourceError(f"make room on the disk of the mirror {self.folder}, then try again: {error}")

    def _identity(self) -> int:
        return self.folder.stat().st_ino if self.folder.exists() else 0


def _is_about_space(error: SourceError) -> bool:
    return any(words in str(error).lower() for words in NO_SPACE)


def _taken(sha: str) -> str:
    return f"refs/cd/taken/{sha}"
