"""When an environment may be deployed to."""

from __future__ import annotations

from airflow_cd.model.base import Duration, Frozen


class Window(Frozen):
    """
    A recurring span of time in which deployments are allowed or denied; exactly one of ``allow`` and ``deny``.

    :param allow: cron expression of the span's starts; outside all ``allow`` windows nothing is deployed
    :param deny: cron expression of the span's starts; deny beats allow
    :param duration: how long each span lasts
    :param timezone: IANA zone the cron expression is read in
    """

    allow: str | None = None
    deny: str | None = None
    duration: Duration
    timezone: str = "UTC"
