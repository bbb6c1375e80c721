"""Revisions from a git repository, through a bare mirror that may vanish at any time."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.model.release import Commit, Revision
from airflow_cd.sources.checkout import write_tree
from airflow_cd.sources.git_commands import NETWORK_TIMEOUT, git, parse_heads, redacted
from airflow_cd.sources.web import commit_url

_SHA = re.compile(r"[0-9a-f]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# NUL cannot be in a commit's text, so whatever is in it stays data.
_FORMAT = "%H%x00%an%x00%ae%x00%ct%x00%s%x00"
_FIELDS = 5
_LONGEST = 200


def _is_transient(error: BaseException) -> bool:
    permanent = (
        "not our ref",
        "couldn't find",
        "not found",
        "does not exist",
        "authentication",
        "permission denied",
        "could not read",
    )
    return isinstance(error, SourceError) and not any(word in str(error).lower() for word in permanent)


_retrying = retry(
    retry=retry_if_exception(_is_transient),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(multiplier=0.5, max=8),
    reraise=True,
)


class GitSource:
    """
    One folder of a git repository.

    :param repository: what ``git clone`` takes
    :param path: the service's folder
    :param cache_dir: where mirrors lie, shared by all services and processes of this machine
    :param env: credentials for git, see :class:`airflow_cd.hooks.git.GitHook`
    """

    def __init__(
        self,
        repository: str,
        *,
        path: str = ".",
        cache_dir: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.repository = repository
        self.path = path
        self._env = env
        name = hashlib.sha256(repository.encode()).hexdigest()[:20]
        self._mirror = cache_dir / f"{name}.git"
        self._lock = FileLock(cache_dir / f"{name}.lock")

    def head(self, branch: str) -> str:
        """Return the SHA the branch points at now."""
        heads = parse_heads(self._remote("ls-remote", "--heads", "--", self.repository))
        if branch not in heads:
            raise SourceError(
                f"{redacted(self.repository)} has no branch {branch!r}; "
                "correct `branch:` in the service's source"
            )
        return heads[branch]

    def revision(self, sha: str) -> Revision:
        """Return what the commit says of itself."""
        self._ensure(sha)
        commit = self._parse(self._git("show", "-s", "-z", f"--format={_FORMAT}", sha, "--"))[0]
        return Revision(**commit.model_dump(), tree=self.tree(sha), version=self._version(sha))

    def tree(self, sha: str) -> str:
        """
        Return the hash of the service's folder at that commit.

        :raises SourceError: there is no such folder
        """
        self._ensure(sha)
        spec = f"{sha}^{{tree}}" if self.path == "." else f"{sha}:{self.path.strip('/')}"
        try:
            return self._git("rev-parse", "--verify", "--end-of-options", spec).decode().strip()
        except SourceError as error:
            raise SourceError(
                f"the folder {self.path!r} does not exist at commit {sha}; "
                "correct `path:` in the service's source"
            ) from error

    def changelog(self, since: str | None, until: str, limit: int = 100) -> Sequence[Commit]:
        """Return the commits after ``since`` up to ``until`` that touch the folder, newest first."""
        self._ensure(until)
        span = [until]
        if since is not None:
            try:
                self._ensure(since)
                span.append(f"^{since}")
            except RevisionNotFoundError:
                # What ran before was force-pushed away: all that can be told is what there is now.
                limit = min(limit, 20)
        return self._commits(f"-{limit}", *span)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether ``old`` is a strict ancestor of ``new``."""
        self._ensure(old)
        self._ensure(new)
        if old == new:
            return False
        return self._git("rev-list", "-1", old, f"^{new}", "--").strip() == b""

    def checkout(self, sha: str, into: Path) -> None:
        """Write exactly that commit's files into the empty folder ``into``."""
        write_tree(self._mirror, self.tree(sha), into)

    def _commits(self, *args: str) -> list[Commit]:
        return self._parse(self._git("log", "-z", f"--format={_FORMAT}", *args, "--", self.path))

    def _parse(self, output: bytes) -> list[Commit]:
        fields = [_text(field) for field in output.split(b"\0")]
        # With -z a NUL follows each entry, which itself ends with one: groups of one more than the fields.
        starts = range(0, len(fields) - _FIELDS, _FIELDS + 1)
        return [self._commit(*fields[i : i + _FIELDS]) for i in starts]

    def _commit(self, sha: str, name: str, email: str, seconds: str, subject: str) -> Commit:
        return Commit(
            sha=sha,
            subject=subject,
            author_name=name,
            author_email=email,
            committed_at=datetime.fromtimestamp(int(seconds), timezone.utc),
            url=commit_url(self.repository, sha),
        )

    def _version(self, sha: str) -> str:
        """A tag `v1.2.3` names the version; later commits, and repositories without one, get a local one."""
        try:
            found = self._git("describe", "--tags", "--long", "--abbrev=8", "--match=v[0-9]*", sha)
        except SourceError:
            count = int(self._git("rev-list", "--count", sha, "--"))
            return f"0.0.0.dev{count}+g{sha[:8]}"
        tag, ahead, _ = found.decode().strip().rsplit("-", 2)
        base = re.sub(r"[^0-9A-Za-z.+-]", "-", tag[1:])
        return base if ahead == "0" else f"{base}.dev{ahead}+g{sha[:8]}"

    def _ensure(self, sha: str) -> None:
        """Have the commit in the mirror, fetching only when it is not there."""
        if not _SHA.fullmatch(sha):
            raise RevisionNotFoundError(f"{sha[:80]!r} is not a full commit SHA (40 hexadecimal digits)")
        if self._has(sha):
            return
        self._mirror.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._make_mirror()
            if not self._has(sha):
                self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            if not self._has(sha):
                self._fetch_commit(sha)
            # A force push and a clean-up must not take away what was built.
            self._git("update-ref", f"refs/cd/taken/{sha}", sha)

    def _fetch_commit(self, sha: str) -> None:
        try:
            self._fetch(sha)
        except SourceError as error:
            raise RevisionNotFoundError(
                f"{redacted(self.repository)} has no commit {sha}; "
                "it may have been force-pushed away: release the branch's present head instead"
            ) from error
        if not self._has(sha):
            raise RevisionNotFoundError(f"{sha} is in {redacted(self.repository)}, but it is not a commit")

    def _has(self, sha: str) -> bool:
        if not (self._mirror / "HEAD").is_file():
            return False
        try:
            # Not only the commit: a fetch that was killed may have left it without its files.
            self._git("rev-list", "-1", "--objects", sha, "--")
            self._git("cat-file", "-e", f"{sha}^{{tree}}")
        except SourceError:
            return False
        return True

    def _make_mirror(self) -> None:
        """Make the mirror, or make it anew when it is broken: all it holds can be fetched again."""
        if self._mirror.exists():
            try:
                self._git("rev-parse", "--git-dir")
                self._git("for-each-ref", "--count=1")
                return
            except SourceError:
                shutil.rmtree(self._mirror)
        temporary = self._mirror.with_suffix(f".new-{os.getpid()}")
        git("init", "--quiet", "--bare", "--", str(temporary))
        os.rename(temporary, self._mirror)

    def _fetch(self, *specs: str) -> None:
        self._remote(
            "fetch", "--quiet", "--no-write-fetch-head", "--", self.repository, *specs, cwd=self._mirror
        )

    @_retrying
    def _remote(self, *args: str, cwd: Path | None = None) -> bytes:
        try:
            return git(*args, cwd=cwd, env=self._env, timeout=NETWORK_TIMEOUT)
        except SourceError as error:
            raise type(error)(f"{redacted(self.repository)}: {error}") from error

    def _git(self, *args: str) -> bytes:
        return git(*args, cwd=self._mirror)


def _text(field: bytes) -> str:
    """Anybody writes commits: what could disturb a terminal, a log or a line is replaced."""
    return _CONTROL.sub("\ufffd", field.decode("utf-8", "replace").strip("\n"))[:_LONGEST]
