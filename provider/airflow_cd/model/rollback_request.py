"""Which release to go back to: what a person may write, choose from, and read before choosing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_cd.model.markdown import escape
from airflow_cd.model.release import Release

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
    """Return button -> digest, newest first. Two releases of one commit are told apart by their digests."""
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
        "Afterwards nothing is promoted there automatically until somebody triggers a deployment by hand, "
        "or approves one.",
    ]
    return "\n\n".join(lines)


def _subject(release: Release) -> str:
    revision = release.revision
    when = revision.committed_at.strftime("%Y-%m-%d %H:%M")
    return f"{escape(revision.subject[:200])} ({escape(revision.author_name)}, {when})"
