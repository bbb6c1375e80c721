"""Asks a remote repository, as often as it is worth it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from airflow_cd.exceptions import SourceError
from airflow_cd.processes.disk import NO_SPACE
from airflow_cd.sources.git_commands import (
    ASK_TIMEOUT,
    FETCH_TIMEOUT,
    GitTimeoutError,
    git,
    parse_heads,
    redacted,
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
        """Return branch name -> SHA as it has them now. :raises SourceError: it does not answer"""
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
            return git(*args, folder=folder, env=self._env, timeout=timeout)
        except SourceError as error:
            raise type(error)(f"{redacted(self.repository)}: {error}") from error
