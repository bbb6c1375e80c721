"""Judging a new release by measurements while it gets some of the requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from pydantic import Field

from airflow_cd.model.base import Duration, Frozen

Outcome = Literal["success", "failure", "inconclusive", "error"]


class Measurement(Frozen):
    """
    One measurement of an analysis.

    :param analysis: name of the analysis
    :param step: number of the strategy's step it was taken for, from 0
    :param at: when
    :param value: what was measured; ``None`` where there was no data, or an error
    :param outcome: what the conditions say of it; an ``error`` is the provider's, not the release's
    :param detail: what was seen, in a few words
    """

    analysis: str
    step: int
    at: datetime
    value: float | None
    outcome: Outcome
    detail: str


class Judgement(NamedTuple):
    """What an analysis comes to."""

    outcome: Outcome
    reason: str


class Analysis(Frozen):
    """One analysis."""

    interval: Duration = timedelta(seconds=30)
    count: int = Field(5, ge=1)

    def judge(self, measurements: Sequence[Measurement]) -> Judgement | None:
        """Return what these measurements (of one step, oldest first) come to, or ``None`` so far."""
        raise NotImplementedError

    def due_at(self, since: datetime, measurements: Sequence[Measurement]) -> datetime:
        """Return when the next one is to be taken. :param since: when the step began"""
        raise NotImplementedError
