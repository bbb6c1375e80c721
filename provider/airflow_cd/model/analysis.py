"""Judging a new release by measurements while it gets some of the requests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.condition import ConditionText, parse_condition
from airflow_cd.model.metric import HttpQuery, PrometheusQuery

Outcome = Literal["success", "failure", "inconclusive", "error"]
_NEVER = datetime.max.replace(tzinfo=timezone.utc)


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
    """What a value, or an analysis, comes to."""

    outcome: Outcome
    reason: str


class Analysis(Frozen):
    """
    One analysis: what is measured (exactly one of ``http`` and ``prometheus``), and what that says.

    The counting, and the defaults of ``failure_limit``, ``inconclusive_limit`` and ``error_limit``, are those
    of Argo Rollouts: a limit is what is tolerated.

    :param http: a number in the JSON answer of an HTTP server
    :param prometheus: the value of a PromQL query
    :param success: condition of a good value; without it, all values are good that are not bad
    :param failure: condition of a bad value; without it, all values are bad that are not good
    :param interval: time between the starts of two measurements
    :param count: so many measurements decide; errors are not among them
    :param failure_limit: so many bad values are tolerated
    :param inconclusive_limit: so many values are tolerated that are neither good nor bad
    :param error_limit: so many errors in a row are tolerated
    :param no_data: what it says of the release when there is no value
    :param initial_delay: time before the first measurement of a step
    """

    http: HttpQuery | None = None
    prometheus: PrometheusQuery | None = None
    success: ConditionText | None = None
    failure: ConditionText | None = None
    interval: Duration = Field(timedelta(seconds=30), ge=timedelta(milliseconds=100))
    count: int = Field(5, ge=1, le=500)
    failure_limit: int = Field(0, ge=0)
    inconclusive_limit: int = Field(0, ge=0)
    error_limit: int = Field(4, ge=0)
    no_data: Outcome = "inconclusive"
    initial_delay: Duration = timedelta(0)

    @model_validator(mode="after")
    def _one_provider(self) -> Analysis:
        if (self.http is None) == (self.prometheus is None):
            raise ValueError("measures exactly one of `http` and `prometheus`; write one of them")
        return self

    @model_validator(mode="after")
    def _says_something(self) -> Analysis:
        if self.success is None and self.failure is None:
            raise ValueError('says of no value what it means; add `success: "< 0.05"`, `failure`, or both')
        if self.failure_limit + self.inconclusive_limit >= self.count:
            raise ValueError(
                "could succeed without a single good value: keep `failure_limit` and `inconclusive_limit` "
                f"together below `count` ({self.count})"
            )
        return self

    @property
    def query(self) -> HttpQuery | PrometheusQuery:
        """Return what is measured."""
        query = self.http or self.prometheus
        assert query is not None
        return query

    def assess(self, value: float | None) -> Judgement:
        """Return what one value says. :param value: ``None``, and what is no number, is no data"""
        if value is None or not math.isfinite(value):
            return Judgement(self.no_data, "there is no data")
        if self.failure is not None and parse_condition(self.failure).holds(value):
            return Judgement("failure", f"{value:.12g} is {self.failure}")
        if self.success is None:
            return Judgement("success", f"{value:.12g} is not {self.failure}")
        if parse_condition(self.success).holds(value):
            return Judgement("success", f"{value:.12g} is {self.success}")
        if self.failure is None:
            return Judgement("failure", f"{value:.12g} is not {self.success}")
        return Judgement("inconclusive", f"{value:.12g} is neither {self.success} nor {self.failure}")

    def judge(self, measurements: Sequence[Measurement]) -> Judgement | None:
        """
        Return what these measurements (of one step, oldest first) come to, or ``None`` so far.

        What the first of them came to stays, whatever was measured afterwards.
        """
        seen: Counter[Outcome] = Counter()
        errors = 0  # in a row
        for one in measurements:
            seen[one.outcome] += 1
            errors = errors + 1 if one.outcome == "error" else 0
            found = self._verdict(seen, errors, one)
            if found is not None:
                return found
        return None

    def due_at(self, since: datetime, measurements: Sequence[Measurement]) -> datetime:
        """
        Return when the next one is to be taken: far in the future when the ones taken are decisive.

        :param since: when the step began
        :param measurements: as in :meth:`judge`
        """
        if not measurements:
            return since + self.initial_delay
        return _NEVER if self.judge(measurements) is not None else measurements[-1].at + self.interval

    def _verdict(self, seen: Counter[Outcome], errors: int, last: Measurement) -> Judgement | None:
        taken = seen.total() - seen["error"]
        told = f"the last one: {last.detail or self.assess(last.value).reason}"
        if seen["failure"] > self.failure_limit:
            counts = f"{seen['failure']} of {taken} measurements failed ({_tolerated(self.failure_limit)})"
            return Judgement("failure", f"{counts}; {told}")
        if errors > self.error_limit:
            counts = f"{errors} measurements in a row could not be taken ({_tolerated(self.error_limit)})"
            return Judgement("error", f"{counts}; {told}")
        if seen["inconclusive"] > self.inconclusive_limit:
            limit = _tolerated(self.inconclusive_limit)
            counts = f"{seen['inconclusive']} of {taken} measurements say neither yes nor no ({limit})"
            return Judgement("inconclusive", f"{counts}; {told}")
        if taken >= self.count:
            return Judgement("success", f"{seen['success']} of {taken} measurements are good; {told}")
        return None


def _tolerated(limit: int) -> str:
    return f"{limit or 'none'} tolerated"
