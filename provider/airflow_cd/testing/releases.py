"""Releases for tests: only a few of their fields matter."""

from __future__ import annotations

from datetime import datetime, timezone

from airflow_cd.model.release import Release, Revision

NEW_YEAR = datetime(2026, 1, 1, tzinfo=timezone.utc)


def release_of(
    digest: str,
    *,
    service: str = "hello",
    version: str = "1.0.0",
    sha: str = "a" * 40,
    subject: str = "fix",
    at: datetime = NEW_YEAR,
) -> Release:
    """
    Return a release of one commit.

    :param digest: of the content, as the artifact store or the registry returned it
    :param at: time of the commit
    """
    revision = Revision(
        sha=sha,
        subject=subject,
        author_name="Ada",
        author_email="ada@example.org",
        committed_at=at,
        tree="f" * 40,
        version=version,
    )
    return Release(
        service=service,
        digest=digest,
        size=1,
        revision=revision,
        version=version,
        build="b",
        created_at=at,
    )
