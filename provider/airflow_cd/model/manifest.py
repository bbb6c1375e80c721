"""What a release train takes to production, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from airflow_cd.model.base import Frozen
from airflow_cd.model.markdown import cell, escape
from airflow_cd.model.release import Release, ReleaseName

_DIGEST = re.compile(r"^Manifest: `(sha256:[0-9a-f]{64})`", re.MULTILINE)
_MOST_COMMITS = 5
_LONGEST_NOTE = 1000  # characters


class TrainRelease(Frozen):
    """
    A release on board, and what it replaces (``None``: the first release of its service).

    :param went_wrong: what went wrong with this service's releases lately, a sentence each
    """

    release: Release
    running: ReleaseName | None = None
    went_wrong: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """Return the name of the service."""
        return self.release.service


class TrainManifest(Frozen):
    """
    The passengers of one departure, by service.

    :param absent: name of each member that is not on board -> why
    """

    train: str
    passengers: tuple[TrainRelease, ...] = ()
    absent: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """Return what an approval is bound to: exactly these releases."""
        content = sorted((passenger.service, passenger.release.digest) for passenger in self.passengers)
        return "sha256:" + hashlib.sha256(json.dumps([self.train, content]).encode()).hexdigest()

    @property
    def authors(self) -> tuple[str, ...]:
        """Return the e-mail addresses of all whose work is on board."""
        return tuple(dict.fromkeys(one for passenger in self.passengers for one in passenger.release.authors))

    def summary(self) -> dict[str, Any]:
        """Return it as JSON: its digest, ``on_board`` (service -> version), ``absent`` (service -> why)."""
        return {
            "manifest": self.digest,
            "on_board": {one.service: one.release.version for one in self.passengers},
            "absent": dict(self.absent),
        }

    def note(self) -> str:
        """Return what the run's note says: no longer than Airflow takes."""
        lines = self.lines() or ["nothing was on board"]
        text = "\n".join(lines)
        while len(text) > _LONGEST_NOTE:
            lines.pop()
            text = "\n".join([*lines, "and others: see the log"])
        return text

    def lines(self) -> list[str]:
        """Return what a log says of it."""
        told = [f"{one.service}: {_from(one)} -> {one.release.version}" for one in self.passengers]
        return [*told, *(f"{service}: not on board, {why}" for service, why in sorted(self.absent.items()))]

    def subject(self) -> str:
        """Return the one-line question."""
        count = len(self.passengers)
        return f"Let the train {self.train} depart with {count} release{'s' if count != 1 else ''}?"

    def body(self) -> str:
        """Return what an approver reads, as Markdown."""
        rows = ["| service | from | to | tests | risk |", "|---|---|---|---|---|"]
        rows += [_row(passenger) for passenger in self.passengers]
        parts = [f"Manifest: `{self.digest}`", "\n".join(rows)]
        parts += [_changes(passenger.release) for passenger in self.passengers]
        if self.absent:
            stays = [f"- {escape(service)}: {escape(why)}" for service, why in sorted(self.absent.items())]
            parts.append("**Not on board**\n\n" + "\n".join(stays))
        return "\n\n".join(parts)


def digest_in(body: str) -> str | None:
    """Return the digest of the manifest that a question is about."""
    found = _DIGEST.search(body)
    return found[1] if found else None


def _from(passenger: TrainRelease) -> str:
    return passenger.running.version if passenger.running else "nothing"


def _row(passenger: TrainRelease) -> str:
    release = passenger.release
    cells = [
        escape(release.service),
        escape(_from(passenger)),
        f"{escape(release.version)} (`{release.short}`)",
        _tests(release),
        escape(_risk(passenger)),
    ]
    return f"| {' | '.join(cell(text) for text in cells)} |"


def _risk(passenger: TrainRelease) -> str:
    """Say how large the change is, how long it has grown, and what went wrong before."""
    release = passenger.release
    if release.since is None:
        return "; ".join(["first release", *passenger.went_wrong])
    commits, people = len(release.changelog), len(release.authors)
    size = f"{commits} commit{'s' * (commits != 1)} by {people} author{'s' * (people != 1)}"
    if commits:
        since = min(commit.committed_at for commit in release.changelog)
        size += f" since {since:%Y-%m-%d}"
    return "; ".join([size, *passenger.went_wrong])


def _tests(release: Release) -> str:
    total = sum(totals.total for totals in release.tests.values())
    passed = sum(totals.passed for totals in release.tests.values())
    return f"{passed} of {total} passed" if release.tests else "none"


def _changes(release: Release) -> str:
    lines = [
        f"- `{commit.short}` {escape(commit.subject)} ({escape(commit.author_name)})"
        for commit in release.changelog[:_MOST_COMMITS]
    ]
    if (more := len(release.changelog) - _MOST_COMMITS) > 0:
        lines.append(f"- and {more} more")
    return f"**{escape(release.service)}**\n\n" + ("\n".join(lines) or "- no commits that touch it")
