"""How long a task that deferred stays away at least."""

from __future__ import annotations

_MORE_THAN_A_HEARTBEAT = 1.0


def defer_delay_seconds() -> float:
    """
    Return after how many seconds Airflow has noticed that a task deferred.

    The supervisor of a task's process may report its end only a heartbeat interval later, and the scheduler
    of Airflow 3.3.2 takes a task that is resumed before that for lost, and retries it.
    """
    from airflow.configuration import conf

    heartbeat: float = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)
    return heartbeat + _MORE_THAN_A_HEARTBEAT
