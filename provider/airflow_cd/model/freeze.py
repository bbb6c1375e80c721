"""Dates on which nothing is deployed."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints, model_validator

from airflow_cd.model.base import Frozen
from airflow_cd.model.wall_clock import ZoneName, instant, local

_DAY_PATTERN = r"\d{4}-\d{2}-\d{2}"
MOMENT_PATTERN = rf"^{_DAY_PATTERN}([T ]\d{{2}}:\d{{2}}(:\d{{2}})?)?$"


def _moment(value: Any) -> str:
    text = value.isoformat() if isinstance(value, date) else value
    if isinstance(text, str) and re.match(MOMENT_PATTERN, text):
        try:
            datetime.fromisoformat(text)
            return text
        except ValueError:
            pass
    raise ValueError("is not a date; write 2026-12-24, or 2026-12-24 18:00, without an offset")


Moment = Annotated[str, BeforeValidator(_moment), StringConstraints(pattern=MOMENT_PATTERN)]


def with_written_dates(content: Any) -> Any:
    """
    Return what a services file says, with the dates of its freezes as the strings that :class:`Freeze` takes.

    YAML makes dates of them, which JSON, that big files are remembered as, does not know.
    """
    if not isinstance(content, dict):
        return content
    written = {**content}
    if isinstance(content.get("freezes"), list):
        written["freezes"] = [_written(freeze) for freeze in content["freezes"]]
    if isinstance(content.get("services"), list):
        written["services"] = [with_written_dates(service) for service in content["services"]]
    if "defaults" in content:
        written["defaults"] = with_written_dates(content["defaults"])
    return written


def _written(freeze: Any) -> Any:
    if not isinstance(freeze, dict):
        return freeze
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in freeze.items()}


class Freeze(Frozen):
    """
    A span of time, once, in which nothing is deployed. Rolling back is never frozen.

    :param start: first day, or date and time, as the clocks of ``timezone`` show it
    :param end: last day, which belongs to the freeze, or date and time at which it is over
    :param reason: why; shown wherever something waits for the end
    :param timezone: IANA zone of both
    :param environments: names of the environments that are frozen; empty means all of them
    """

    start: Moment
    end: Moment
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
    timezone: ZoneName = "UTC"
    environments: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _lasts(self) -> Freeze:
        if self.starts_at >= self.ends_at:
            raise ValueError("ends before it starts; `end` is a later date, or the same day")
        return self

    @property
    def starts_at(self) -> datetime:
        """Return the aware time of its beginning: of a time that comes twice, the first one."""
        return instant(_wall(self.start, whole_day=False), self.timezone, fold=0)

    @property
    def ends_at(self) -> datetime:
        """Return the aware time at which it is over: of a time that comes twice, the second one."""
        return instant(_wall(self.end, whole_day=True), self.timezone, fold=1)

    @property
    def told(self) -> str:
        """Return the reason and the end."""
        return f"frozen until {local(self.ends_at, self.timezone)}: {self.reason}"

    def holds(self, now: datetime) -> bool:
        """Tell whether it is frozen at the aware time ``now``."""
        return self.starts_at <= now < self.ends_at

    def concerns(self, environment: str) -> bool:
        """Tell whether the environment of this name is frozen with it."""
        return not self.environments or environment in self.environments


def _wall(moment: str, *, whole_day: bool) -> datetime:
    if re.match(f"^{_DAY_PATTERN}$", moment):
        day = date.fromisoformat(moment) + timedelta(days=1 if whole_day else 0)
        return datetime.combine(day, time())
    return datetime.fromisoformat(moment)
