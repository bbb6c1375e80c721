"""What a source of revisions does. Sources are synchronous and safe to use from several processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from airflow_cd.model.release import Commit, Revision


class Source(Protocol):
    """A repository of revisions, with a local cache that may vanish at any time."""

    def head(self, branch: str) -> str:
        """
        Return the full SHA the branch points at now.

        :raises SourceError: the remote cannot be reached or has no such branch
        """

    def revision(self, sha: str) -> Revision:
        """
        Return what the commit says of itself, fetching it when the cache lacks it.

        :raises RevisionNotFoundError: no such commit, even after fetching
        :raises SourceError: the remote cannot be reached
        """

    def changelog(self, since: str | None, until: str, limit: int = 100) -> Sequence[Commit]:
        """Return the commits after ``since`` up to ``until``, newest first, that touch the service's path."""

    def is_ancestor(self, old: str, new: str) -> bool:
        """
        Tell whether ``old`` is a strict ancestor of ``new``.

        :raises RevisionNotFoundError: one of them is unknown, even after fetching
        """

    def is_on_branch(self, sha: str, branch: str) -> bool:
        """
        Return whether the commit is the head of the branch at the remote, or an ancestor of it.

        :raises RevisionNotFoundError: no such commit, even after fetching
        :raises SourceError: the remote cannot be reached or has no such branch
        """

    def checkout(self, sha: str, into: Path) -> None:
        """Write exactly that commit's files (the service's path only) into the empty folder ``into``."""
