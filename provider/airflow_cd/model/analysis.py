"""The analysis of a candidate: metrics, and the conditions that pass or fail their values."""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.subject import check_promql, check_url

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<operator>[<>=!]+)|(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.%])"
    r"|(?P<word>and|or)\b|(?P<other>\S+))"
)
_EXAMPLES = "write for example '< 0.05', '>= 99.9' or '> 10 and < 20'"


class Comparison(NamedTuple):
    """One comparison of what was measured with a number."""

    operator: str
    number: float

    def holds(self, value: float) -> bool:
        """Return whether it is true of the value."""
        return _OPERATORS[self.operator](value, self.number)


class Condition(NamedTuple):
    """
    Comparisons, combined with ``and`` and ``or``; ``and`` binds closer.

    :param alternatives: one of these has to hold, and of it, all
    """

    alternatives: tuple[tuple[Comparison, ...], ...]

    def holds(self, value: float) -> bool:
        """Return whether it is true of the value."""
        return any(all(one.holds(value) for one in joined) for joined in self.alternatives)


@lru_cache(maxsize=256)
def parse_condition(text: str) -> Condition:
    """
    Return what a text means.

    :raises ValueError: it is not a condition
    """
    tokens = [(str(found.lastgroup), found[0].strip()) for found in _TOKEN.finditer(text.rstrip())]
    alternatives: list[list[Comparison]] = [[]]
    for place in range(0, len(tokens) or 1, 3):
        alternatives[-1].append(_comparison(tokens[place : place + 2]))
        if len(tokens) <= place + 2:
            return Condition(tuple(tuple(joined) for joined in alternatives))
        kind, word = tokens[place + 2]
        if kind != "word":
            raise ValueError(f"has {word!r} where `and` or `or` is expected; {_EXAMPLES}")
        if word == "or":
            alternatives.append([])
    raise ValueError(f"ends after `and` or `or`; {_EXAMPLES}")


def _comparison(tokens: list[tuple[str, str]]) -> Comparison:
    kind, sign = tokens[0] if tokens else ("", "")
    if kind != "operator":
        found = f"has {sign!r}" if sign else "ends"
        raise ValueError(f"{found} where a comparison is expected; {_EXAMPLES}")
    if sign not in _OPERATORS:
        raise ValueError(f"has no comparison {sign!r}; these are known: {' '.join(_OPERATORS)}")
    kind, number = tokens[1] if len(tokens) > 1 else ("", "")
    if kind != "number":
        found = f"has {number!r}" if number else "ends"
        raise ValueError(f"{found} where a number is expected after {sign!r}; {_EXAMPLES}")
    return Comparison(sign, float(number))


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is not a condition; {_EXAMPLES}, in quotes")
    parse_condition(value)
    return value.strip()


# Kept as people write it.
ConditionText = Annotated[str, BeforeValidator(_checked)]


# What most paths look like; these need no library to be checked.
_SIMPLE_PATH = re.compile(r"\$(\.[A-Za-z_][A-Za-z0-9_]*|\[\d{1,9}\]|\['[^'\\\x00-\x1f]*'\])*")
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key")


def _url(value: str) -> str:
    check_url(value)
    if re.search(r"[\s\x00-\x1f\x7f#]", value):
        raise ValueError("is not an address that can be asked: it has a space or a '#' in it")
    parts = urlsplit(value)
    if "@" in parts.netloc:
        raise ValueError("has a user or a password in it; put them into an Airflow connection, see `conn_id`")
    whole = parts.scheme in ("http", "https") and parts.netloc
    if not whole and (not value.startswith("/") or value.startswith("//")):
        raise ValueError("is not an address; write http://..., https://..., or with `conn_id` a path: /...")
    return value


def _json_path(value: str) -> str:
    if _SIMPLE_PATH.fullmatch(value):
        return value
    from jsonpath_rfc9535 import JSONPathError, compile

    try:
        compile(value)
    except JSONPathError as error:
        raise ValueError(f"is not a JSONPath as in RFC 9535: {error}") from error
    return value


def _headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS:
            raise ValueError(f"has {name!r}, which is a secret; put it into an Airflow connection: `conn_id`")
        if "${" in value:
            raise ValueError(f"has a placeholder in {name!r}; only addresses and queries may have some")
    return headers


def _promql(value: str) -> str:
    check_promql(value)
    return value


Url = Annotated[str, AfterValidator(_url)]
JsonPath = Annotated[str, AfterValidator(_json_path)]
Headers = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")],
        Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]*$")],
    ],
    AfterValidator(_headers),
]
ConnectionId = Annotated[str, StringConstraints(min_length=1)]


class HttpQuery(Frozen):
    """
    A number in what an HTTP server answers.

    :param url: address, which may hold placeholders; with ``conn_id`` also a path on the connection's host
    :param json_path: the JSONPath (RFC 9535) of the number (in services files ``json``)
    :param method: HTTP method of the request
    :param headers: to send along; no secrets
    :param conn_id: Airflow connection with host, login and password
    :param timeout: how long one measurement may take; the default is that of Argo Rollouts' web metric
    """

    model_config = ConfigDict(serialize_by_alias=True)

    url: Url
    json_path: JsonPath = Field("$", alias="json")
    method: Literal["GET", "POST"] = "GET"
    headers: Headers = Field(default_factory=dict)
    conn_id: ConnectionId | None = None
    timeout: Duration = Field(timedelta(seconds=10), gt=timedelta(0))

    @model_validator(mode="after")
    def _somewhere(self) -> HttpQuery:
        if self.url.startswith("/") and self.conn_id is None:
            raise ValueError(
                "has a path as `url` and no `conn_id` that tells the host; add it, or http://..."
            )
        return self


class PrometheusQuery(Frozen):
    """
    The value of a PromQL query, from Prometheus or what has its API.

    :param query: has to come to one value; may hold placeholders in quotes
    :param url: of the server, which may hold placeholders; not needed where the connection has a host
    :param headers: to send along; no secrets
    :param conn_id: Airflow connection with host, login and password
    :param timeout: how long one measurement may take
    """

    query: Annotated[str, StringConstraints(min_length=1), AfterValidator(_promql)]
    url: Url | None = None
    headers: Headers = Field(default_factory=dict)
    conn_id: ConnectionId | None = None
    timeout: Duration = Field(timedelta(seconds=10), gt=timedelta(0))

    @model_validator(mode="after")
    def _somewhere(self) -> PrometheusQuery:
        if self.conn_id is None and (self.url is None or self.url.startswith("/")):
            raise ValueError("does not say where Prometheus is; add `url: http://...` or `conn_id`")
        if self.url is not None and "?" in self.url:
            raise ValueError("has a `url` with a '?'; write the address of the server only")
        return self


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
        """
        Return what one value says.

        :param value: ``None``, and what is no number, is no data
        """
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
