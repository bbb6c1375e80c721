"""What an approver reads before deciding, as Markdown."""

from __future__ import annotations

import re

from airflow_cd.model.markdown import escape
from airflow_cd.model.release import Commit, Release, TestTotals

_DIGEST = re.compile(r"^Digest: `(sha256:[0-9a-f]{64})`", re.MULTILINE)
_REVISION = re.compile(r"^Commit: \[?`([0-9a-f]{40})`", re.MULTILINE)
_MOST_COMMITS = 30


def approval_subject(release: Release, environment: str) -> str:
    """Return the one-line question."""
    return f"Deploy {release.service} {release.version} to {environment}?"


def approval_body(
    release: Release,
    environment: str,
    running: Release | None,
    diff_url: str | None = None,
    preview: str | None = None,
) -> str:
    """
    Return what is asked for: the release, what it replaces, its changes and its tests.

    :param running: what the environment runs now
    :param diff_url: page that shows the difference between both commits, when the git host has one
    :param preview: Markdown of what it would change at its target, where that can tell
    """
    runs = f"{escape(running.version)} (`{running.short}`)" if running else "nothing yet"
    parts = [
        f"**{escape(release.service)} {escape(release.version)}** to **{escape(environment)}**, "
        f"which runs {runs}.",
        f"Digest: `{release.digest}`  \nCommit: {_commit_name(release.revision, release.revision.sha)} by "
        f"{escape(release.revision.author_name)}",
        "**Tests**\n\n" + _tests(release),
        f"**Changes** since {'`' + release.since[:8] + '`' if release.since else 'the beginning'}\n\n"
        + _changes(release.changelog),
    ]
    if preview:
        parts.append(f"**What it would change there**\n\n{preview}")
    if diff_url:
        parts.append(f"[Difference to what runs]({diff_url})")
    return "\n\n".join(parts)


def digest_in(body: str) -> str | None:
    """Return the digest of the release that a question is about."""
    found = _DIGEST.search(body)
    return found[1] if found else None


def revision_in(body: str) -> str | None:
    """Return the commit of the release that a question is about."""
    found = _REVISION.search(body)
    return found[1] if found else None


def _tests(release: Release) -> str:
    if not release.tests:
        return "- no suites are declared"
    return "\n".join(f"- {name}: {_totals(totals)}" for name, totals in sorted(release.tests.items()))


def _totals(totals: TestTotals) -> str:
    if totals.total == 0:
        return "no report"
    counts = {
        "passed": totals.passed,
        "failed": totals.failed,
        "errors": totals.errors,
        "skipped": totals.skipped,
    }
    shown = [f"{count} {what}" for what, count in counts.items() if count or what == "passed"]
    return f"{', '.join(shown)} of {totals.total}"


def _changes(changelog: tuple[Commit, ...]) -> str:
    if not changelog:
        return "- none that touch this service"
    lines = [
        f"- {_commit_name(commit)} {escape(commit.subject)} ({escape(commit.author_name)})"
        for commit in changelog
    ]
    more = len(lines) - _MOST_COMMITS
    return "\n".join(lines[:_MOST_COMMITS] + ([f"- and {more} more"] if more > 0 else []))


def _commit_name(commit: Commit, name: str | None = None) -> str:
    shown = f"`{name or commit.short}`"
    return f"[{shown}]({commit.url})" if commit.url else shown
