"""Revisions from a git repository, through a bare mirror that may vanish at any time."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.model.release import Commit, Revision
from airflow_cd.model.repository_url import public_url
from airflow_cd.model.text import printable
from airflow_cd.sources.checkout import TreeLimits, write_tree
from airflow_cd.sources.mirror import Mirror
from airflow_cd.sources.web import commit_url

# NUL cannot be in a commit's text, so whatever is in it stays data.
_FORMAT = "%H%x00%an%x00%ae%x00%ct%x00%s%x00"
_FIELDS = 5
_LONGEST = 200
_MOST_WITHOUT_START = 20
_MOST_UNKNOWN = 1000
_EMAIL = re.compile(r"<([^<>]+)>\s*$")


class GitSource:
    """
    One folder of a git repository.

    :param repository: what ``git clone`` takes
    :param path: the service's folder
    :param cache_dir: where mirrors lie, shared by all services and processes of this machine
    :param env: credentials for git, see :class:`airflow_cd.hooks.git.GitHook`
    :param limits: how much a checkout may hold
    """

    def __init__(
        self,
        repository: str,
        *,
        path: str = ".",
        cache_dir: Path,
        env: Mapping[str, str] | None = None,
        limits: TreeLimits | None = None,
    ) -> None:
        self._limits = limits
        self.repository = repository
        self.path = posixpath.normpath(path)
        self._mirror = Mirror(repository, cache_dir, env)
        self._gone: set[str] = set()
        self._trees: dict[str, str] = {}

    def head(self, branch: str) -> str:
        """Return the SHA the branch points at now."""
        heads = self._mirror.heads()
        if branch not in heads:
            raise SourceError(
                f"{public_url(self.repository)} has no branch {branch!r}; "
                "correct `branch:` in the service's source"
            )
        return heads[branch]

    def revision(self, sha: str) -> Revision:
        """Return what the commit says of itself."""
        return Revision(**self.commit(sha).model_dump(), tree=self.tree(sha), version=self._version(sha))

    def commit(self, sha: str) -> Commit:
        """Return what the commit says of itself, whether or not it has the service's folder."""
        return self._mirror.reading(lambda: self._log("--max-count=1", sha)[0], sha)

    def tree(self, sha: str) -> str:
        """
        Return the hash of the service's folder at that commit.

        :raises SourceError: there is no such folder
        """
        found = self._trees.get(sha) or self.find_tree(sha)
        if found is None:
            raise SourceError(
                f"the folder {self.path!r} does not exist at commit {sha}; "
                "correct `path:` in the service's source"
            )
        self._trees[sha] = found
        return found

    def find_tree(self, sha: str) -> str | None:
        """Return the hash of the service's folder at that commit, or ``None`` when it is not there."""
        if self.path == ".":
            return self._read("rev-parse", "--verify", f"{sha}^{{tree}}", of=sha).decode().strip()
        entry = self._read("ls-tree", "-d", "-z", "--full-tree", sha, "--", self.path, of=sha)
        fields = entry.partition(b"\t")[0].decode().split()
        return fields[2] if len(fields) == 3 and fields[1] == "tree" else None

    def changelog(self, since: str | None, until: str, limit: int = 100) -> Sequence[Commit]:
        """
        Return the commits after ``since`` up to ``until`` that touch the folder, newest first.

        :param since: where to stop; ``None``, or a commit that is gone for good, leaves it to ``limit``
        """
        self._mirror.take(until)
        span = self._span(since, until)
        if len(span) == 1 and since is not None:
            # What ran before was force-pushed away: only the present commits are known.
            limit = min(limit, _MOST_WITHOUT_START)
        arguments = [f"--max-count={limit}", *span, "--", *self._folder()]
        return self._mirror.reading(lambda: self._log(*arguments), until)

    def authors(self, since: str | None, until: str) -> tuple[str, ...]:
        """
        Return the e-mail addresses of authors and co-authors of the commits that touch the folder.

        :param since: where to stop; ``None`` asks for the newest commit alone. One that is gone for good
            leaves no end: then the authors of the last thousand commits are all that can be named.
        """
        self._mirror.take(until)
        span = [until] if since is None else self._span(since, until)
        limit = ["--max-count=1"] if since is None else [f"--max-count={_MOST_UNKNOWN}"] * (len(span) == 1)
        own = self._log_emails("--max-count=1", until)
        return tuple(dict.fromkeys((*own, *self._log_emails(*limit, *span, "--", *self._folder()))))

    def _log_emails(self, *args: str) -> list[str]:
        # What is not an address in angle brackets names nobody; neither does it hide anybody.
        form = "%ae%x00%(trailers:key=Co-authored-by,valueonly,separator=%x00)%x00"
        output = self._mirror.git("log", "-z", f"--format={form}", *args)
        fields = [_text(field.decode("utf-8", "replace")).strip() for field in output.split(b"\0")]
        return [found[1] if (found := _EMAIL.search(field)) else field for field in fields if field]

    def count(self, since: str | None, until: str) -> int:
        """Return how many commits :meth:`changelog` would list without a limit."""
        span = self._span(since, until)
        return int(self._read("rev-list", "--count", *span, "--", *self._folder(), of=until))

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether ``old`` is a strict ancestor of ``new``."""
        arguments = ("rev-list", "--max-count=1", old, f"^{new}", "--")
        beyond = self._mirror.reading(lambda: self._mirror.git(*arguments), old, new)
        return old != new and not beyond.strip()

    def is_on_branch(self, sha: str, branch: str) -> bool:
        """Return whether the commit is the head of the branch at the remote, or an ancestor of it."""
        head = self.head(branch)
        return sha == head or self.is_ancestor(sha, head)

    def ancestors(self, of: str, among: Collection[str]) -> set[str]:
        """
        Return which of the commits ``among`` are strict ancestors of a commit.

        One that the mirror lacks is left out, not asked for: there may be many.
        """
        self._mirror.take(of)
        return {sha for sha in among if sha != of and self._leads_to(sha, of)}

    def _leads_to(self, sha: str, of: str) -> bool:
        try:
            self._mirror.git("merge-base", "--is-ancestor", sha, of)
        except SourceError:  # it is none, or is not here
            return False
        return True

    def checkout(self, sha: str, into: Path) -> None:
        """
        Write exactly that commit's files into the empty folder ``into``.

        :raises SourceError: there is no such folder in the commit, it has submodules, or links that leave it
        """
        tree = self.tree(sha)
        self._mirror.reading(lambda: write_tree(self._mirror.folder, tree, into, self._limits), sha)

    def _span(self, since: str | None, until: str) -> list[str]:
        if since is None or since in self._gone:
            return [until]
        try:
            self._mirror.take(since)
        except RevisionNotFoundError:
            self._gone.add(since)  # to ask the remote again would take long and change nothing
            return [until]
        return [until, f"^{since}"]

    def _folder(self) -> list[str]:
        """Without a folder no path is named: git would leave out commits that change no file."""
        return [] if self.path == "." else [self.path]

    def _read(self, *args: str, of: str) -> bytes:
        return self._mirror.reading(lambda: self._mirror.git(*args), of)

    def _log(self, *args: str) -> list[Commit]:
        output = self._mirror.git("log", "-z", f"--format={_FORMAT}", *args)
        fields = [field.decode("utf-8", "replace") for field in output.split(b"\0")]
        # With -z a NUL follows each entry, which itself ends with one: groups of one more than the fields.
        starts = range(0, len(fields) - _FIELDS, _FIELDS + 1)
        return [self._commit(*fields[i : i + _FIELDS]) for i in starts]

    def _commit(self, sha: str, name: str, email: str, seconds: str, subject: str) -> Commit:
        return Commit(
            sha=sha,
            subject=_text(subject),
            author_name=_text(name),
            author_email=_text(email),
            committed_at=_time(seconds),
            url=commit_url(self.repository, sha),
        )

    def _version(self, sha: str) -> str:
        """A tag ``v1.2.3`` names its commit; other commits tell how far they are from it."""
        options = ("--tags", "--long", "--always", "--abbrev=40", "--match=v[0-9]*")
        found = self._read("describe", *options, sha, of=sha).decode("utf-8", "replace").strip()
        if found == sha:  # no tag
            count = int(self._read("rev-list", "--count", sha, "--", of=sha))
            return f"0.0.0.dev{count}+g{sha[:8]}"
        tag, ahead, _ = found.rsplit("-", 2)
        base = re.sub(r"[^0-9A-Za-z.+-]", "-", tag[1:])
        return base if ahead == "0" else f"{base.replace('+', '.')}.dev{ahead}+g{sha[:8]}"


def _text(field: str) -> str:
    """Anybody writes commits: what could disturb a terminal, a log or a line is replaced."""
    return printable(field.strip("\n"), _LONGEST)


def _time(seconds: str) -> datetime:
    """A commit may state any time, also none."""
    try:
        return datetime.fromtimestamp(int(seconds), timezone.utc)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, timezone.utc)
