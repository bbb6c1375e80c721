"""Where the values come from that a release is judged by."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.subject import check_promql, check_url

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
