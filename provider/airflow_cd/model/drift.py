"""Drift: changes by hand to what a release set, and how to respond."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from airflow_cd.model.base import Frozen
from airflow_cd.model.window import Cron, ZoneName

HEAL = "heal"


class DriftSettings(Frozen):
    """
    :param action: ``report`` fails the check with the difference, ``heal`` puts back what the release set
    :param schedule: cron expression of the checks, in ``timezone``
    :param timezone: zone of ``schedule``
    """

    action: Literal["report", "heal"] = "report"
    schedule: Cron = "*/15 * * * *"
    timezone: ZoneName = "UTC"


def _short_form(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


DriftPolicy = Annotated[DriftSettings, BeforeValidator(_short_form)]
