"""What is read by somebody who says how a rollout goes on, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_cd.model.analysis import Measurement
from airflow_cd.model.markdown import cell, escape
from airflow_cd.model.progress import Progress
from airflow_cd.model.release import Release

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
