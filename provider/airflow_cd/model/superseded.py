"""Which waiting releases a newer one made pointless."""

from __future__ import annotations

from airflow_cd.model.base import Frozen

# The key under which an asset event has it.
SUPERSEDED = "cd_superseded"


class Superseded(Frozen):
    """
    Runs of one DAG whose approval nobody needs to give any more.

    :param task_id: the task that waits in each of them
    :param runs: run id -> version of the run's release
    :param reason: what is shown to a person, after the version
    """

    task_id: str
    runs: dict[str, str]
    reason: str
