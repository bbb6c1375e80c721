"""What is read by somebody who may let a release in although the environment is closed, as Markdown."""

from __future__ import annotations

from airflow_cd.model.markdown import escape
from airflow_cd.model.release import Release
from airflow_cd.model.window import Closed

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
            f"**{escape(release.service)} {escape(release.version)}** waits: **{escape(environment)}** may "
            f"not be deployed to now: {escape(closed.reason)}; {opening(closed)}.",
            f"Digest: `{release.digest}`  \nCommit: `{release.revision.sha}`",
            "Without an answer it is deployed when the environment opens. An answer deploys it now; it is "
            "recorded with your name.",
        ]
    )
