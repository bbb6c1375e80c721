"""Looking whether somebody changed by hand what a release set, and what is done about it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator

from airflow_cd.model.base import Frozen
from airflow_cd.model.wall_clock import valid_zone
from airflow_cd.model.window import valid_cron

REPORT, HEAL = "report", "heal"


class Drift(Frozen):
    """
    :param action: ``report`` fails the check with the difference, ``heal`` puts back what the release set
    :param schedule: cron expression of the checks, in ``timezone``
    """

    action: Literal["report", "heal"] = "report"
    schedule: str = "*/15 * * * *"
    timezone: str = "UTC"

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str) -> str:
        return valid_cron(schedule)

    @field_validator("timezone")
    @classmethod
    def _zone(cls, timezone: str) -> str:
        return valid_zone(timezone)


def _short_form(value: Any) -> Any:
    return {"action": value} if isinstance(value, str) else value


DriftPolicy = Annotated[Drift, BeforeValidator(_short_form)]
