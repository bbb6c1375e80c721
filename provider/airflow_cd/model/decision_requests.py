"""What a person reads before a decision, as Markdown, and the data that says what the decision is about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from airflow_cd.model.analysis import Measurement
from airflow_cd.model.base import Frozen
from airflow_cd.model.release import Commit, Digest, Release, Sha, TestTotals
from airflow_cd.model.rollout import Progress
from airflow_cd.model.text import cell, escape
from airflow_cd.model.window import Closed

_MOST_COMMITS = 30
# The field of a question's form that carries its subject. The form does not show it.
ABOUT = "about"


class QuestionSubject(Frozen):
    """
    What a question is about. A question carries it as data, beside the text that a person reads.

    :param manifest: digest of the release manifest, or of a train's manifest; ``None`` for a rollout, which
        its token identifies
    :param digest: the release; ``None`` for a train
    :param revision: the release's commit; ``None`` for a train
    """

    manifest: Digest | None = None
    digest: Digest | None = None
    revision: Sha | None = None

    @classmethod
    def of(cls, release: Release, manifest: str | None = None) -> QuestionSubject:
        """Return the subject of a question about this release."""
        return cls(manifest=manifest, digest=release.digest, revision=release.revision.sha)


def subject_in(params: Mapping[str, Any]) -> QuestionSubject | None:
    """
    Return what a question is about, or ``None`` when it does not say.

    :param params: fields of the question's form, as Airflow stores or returns them
    """
    field = params.get(ABOUT)
    try:
        return QuestionSubject.model_validate(field.get("value") if isinstance(field, Mapping) else None)
    except ValidationError:
        return None


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


DEPLOY_NOW = "Deploy now"


def opening(closed: Closed) -> str:
    """Return the sentence about when it opens."""
    if closed.opens_at is None:
        return "no opening is in sight"
    return f"it opens at {closed.opens_at.isoformat()}"


def window_subject(release: Release, environment: str) -> str:
    """Return the one-line question."""
    return f"Deploy {release.service} {release.version} to {environment}, which is closed?"


def window_body(release: Release, environment: str, closed: Closed) -> str:
    """Return why it waits, until when, and what an answer does."""
    return "\n\n".join(
        [
            f"**{escape(release.service)} {escape(release.version)}** waits: **{escape(environment)}** "
            f"cannot be deployed to now: {escape(closed.reason)}; {opening(closed)}.",
            f"Digest: `{release.digest}`  \nCommit: `{release.revision.sha}`",
            "Without an answer it is deployed when the environment opens. An answer deploys it now; it is "
            "recorded with your name.",
        ]
    )


GO_ON, ABORT = "Go on", "Abort"
_SHOWN = 20


def rollout_subject(release: Release, environment: str) -> str:
    """Return the one-line question. Airflow shows a task's first question for every later one."""
    return f"Rollout of {release.service} {release.version} in {environment}: go on?"


def rollout_body(release: Release, environment: str, described: str, progress: Progress) -> str:
    """
    Return where it stands, what was measured, and what an answer does.

    :param described: where the rollout stands, in one line
    """
    revision = release.revision
    return "\n\n".join(
        [
            f"**{escape(release.service)} {escape(release.version)}** in **{escape(environment)}**: "
            f"{escape(described)}.",
            f"Digest: `{release.digest}`  \nCommit: `{revision.sha}` {escape(revision.subject)}",
            *measured(progress.measurements),
            "*Go on* takes the next step, *Abort* gives all requests back to the release before. The release "
            "is watched meanwhile: should it turn out bad, it is aborted without an answer. For later "
            "questions of this rollout this text stays; the task's log and `airflow cd status` show where it "
            "stands then.",
        ]
    )


def measured(measurements: Sequence[Measurement]) -> list[str]:
    """Return a table of the last measurements, in a list; an empty one when there are none."""
    if not measurements:
        return []
    rows = [
        f"| {cell(one.analysis)} | {one.at.isoformat(timespec='seconds')} | "
        f"{'' if one.value is None else f'{one.value:g}'} | {one.outcome} | {cell(escape(one.detail))} |"
        for one in measurements[-_SHOWN:]
    ]
    return ["\n".join(["| analysis | at | value | outcome | |", "|---|---|---|---|---|", *rows])]


PREVIOUS, CHOOSE = "previous", "choose"
_HEX = re.compile(r"^[0-9a-f]{7,64}$")


def find_release(wanted: str, releases: Sequence[Release]) -> str | None:
    """
    Return the digest of the release that ``wanted`` names; ``None`` for ``previous``, whichever that is.

    :param wanted: ``previous``, a version, or (at least 7 digits of) a commit or a digest
    :param releases: those that can be gone back to, newest first
    :raises ValueError: none or several are named
    """
    wanted = wanted.strip()
    if wanted == PREVIOUS:
        return None
    found = [release for release in releases if _is_meant(wanted, release)]
    if len(found) == 1:
        return found[0].digest
    known = "; ".join(f"{release_name(release)}, {release.digest}" for release in releases) or "none"
    problem = "no release" if not found else f"{len(found)} releases"
    raise ValueError(
        f"{wanted[:80]!r} names {problem} that can be gone back to. Those are: {known}. "
        f"Write a version, a commit, a digest, {PREVIOUS!r} or {CHOOSE!r}"
    )


def _is_meant(wanted: str, release: Release) -> bool:
    if wanted == release.version:
        return True
    digits = wanted.removeprefix("sha256:")
    if not _HEX.match(digits):
        return False
    is_digest = release.digest.removeprefix("sha256:").startswith(digits)
    return is_digest or (wanted == digits and release.revision.sha.startswith(digits))


def release_name(release: Release) -> str:
    """Return how a list shows a release."""
    return f"{release.version} ({release.revision.short})"


def release_choices(releases: Sequence[Release]) -> dict[str, str]:
    """Return button -> digest, newest first. The digest distinguishes two releases of one commit."""
    names = [release_name(release) for release in releases]
    return {
        title if names.count(title) == 1 else f"{title} {release.short}": release.digest
        for title, release in zip(names, releases, strict=True)
    }


def rollback_body(environment: str, running: Release, releases: Sequence[Release]) -> str:
    """Return what a person reads before choosing, as Markdown."""
    lines = [
        f"**{escape(environment)}** runs {escape(release_name(running))}: {_subject(running)}",
        "It can go back to (newest first):",
        "\n".join(f"- **{escape(release_name(release))}** {_subject(release)}" for release in releases),
        "Afterwards nothing is promoted there automatically until a person triggers a deployment by hand, "
        "or approves one.",
    ]
    return "\n\n".join(lines)


def _subject(release: Release) -> str:
    revision = release.revision
    when = revision.committed_at.strftime("%Y-%m-%d %H:%M")
    return f"{escape(revision.subject[:200])} ({escape(revision.author_name)}, {when})"
