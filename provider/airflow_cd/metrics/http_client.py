"""Reads numbers from HTTP servers that may be slow or hostile: one request, bounded in size and time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import Logins, MetricLogin
from airflow_cd.model.base import format_duration
from airflow_cd.model.subject import Subject, fill_url
from airflow_cd.model.text import printable
from airflow_cd.processes.http_reading import HEADERS, UnreadableAnswerError, read_answer

if TYPE_CHECKING:
    from datetime import timedelta

    import httpx


def number_of(found: Any) -> float | None:
    """
    Return a number as JSON, or a text in it, has it; ``None`` for null, NaN and what is infinite.

    True is 1, and false is 0.

    :raises MetricError: it is no number
    """
    if found is None:
        return None
    try:
        if not isinstance(found, (bool, int, float, str)) or (isinstance(found, str) and "_" in found):
            raise ValueError("no number")
        value = float(found)
    except OverflowError:
        return None
    except ValueError as error:
        kind = _KINDS.get(type(found).__name__, "something else")
        raise MetricError(f"it is {kind}, not a number") from error
    return value if math.isfinite(value) else None


_KINDS = {"str": "a text", "dict": "an object", "list": "a list"}
_LONGEST_BODY = 1024 * 1024
_SHOWN = 200
_PORTS = {"http": 80, "https": 443}


class HttpAnswer(NamedTuple):
    """What a server said. ``place`` is its address for messages: without what follows a question mark."""

    status: int
    content: bytes
    place: str
    login: MetricLogin | None

    def parsed(self) -> Any:
        """
        Return it as JSON.

        :raises MetricError: it is none. What it is instead is not shown: a person who can name an
            address could read what only this machine may ask.
        """
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise MetricError(f"{self.place} did not answer with JSON (HTTP {self.status})") from None


def quoted(text: str, login: MetricLogin | None) -> str:
    """Return a server's words as they may stand in a message: short, on one line, and without secrets."""
    return printable(login.hidden_in(text) if login is not None else text, _SHOWN)


async def login_of(conn_id: str | None, logins: Logins) -> MetricLogin | None:
    """
    Return what the connection says, if there is to be one.

    :raises MetricError: it cannot be used
    """
    return await logins(conn_id) if conn_id is not None else None


def address(url: str, subject: Subject, login: MetricLogin | None) -> str:
    """
    Return the whole address.

    :param url: template of it, or of a path on the login's server
    :raises MetricError: there is no server, or it is one that cannot see the login
    """
    filled = fill_url(url, subject)
    if login is None:
        return filled
    if filled.startswith("/"):
        if login.base_url is None:
            raise MetricError(
                f"connection {login.conn_id!r} has no host that {url!r} could be asked of; add it"
            )
        return login.base_url + filled
    if login.base_url is not None and _origin(filled) != _origin(login.base_url):
        raise MetricError(
            f"the login of connection {login.conn_id!r} is for {login.base_url} only, not for "
            f"{_shown(filled)}; write the path alone, or correct one of them"
        )
    return filled


async def ask(
    url: str,
    login: MetricLogin | None,
    *,
    timeout: timedelta,
    method: str = "GET",
    headers: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> HttpAnswer:
    """
    Ask once, and return what came back, whatever its status is.

    Redirects are not followed: they would show login and network to the server they lead to. Proxies
    are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).

    :raises MetricError: no answer came in time, or it is a redirect, compressed, or longer than 1 MiB
    """
    import httpx

    from airflow_cd.processes.http_transport import GuardedTransport, proxy_of

    place = _shown(url)
    try:
        secure = url.startswith("https:")
        # A connection of its own each time: one that was kept open would be closed by the server just now.
        async with httpx.AsyncClient(
            transport=GuardedTransport(secure=secure, proxy=proxy_of(url)),
            auth=httpx.BasicAuth(login.user, login.password or "") if login and login.user else None,
            follow_redirects=False,
            timeout=timeout.total_seconds(),
        ) as client:
            sent = _headers(headers, login)
            async with client.stream(method, url, params=params, headers=sent) as response:
                return HttpAnswer(response.status_code, await _content(response, place), place, login)
    except httpx.TimeoutException as error:
        raise MetricError(f"{place} did not answer within {format_duration(timeout)}") from error
    except (httpx.LocalProtocolError, UnicodeError) as error:
        # What it is may be a secret.
        raise MetricError(
            f"{place} cannot be asked: a header or the login has signs that cannot be sent"
        ) from error
    except httpx.RemoteProtocolError as error:
        raise MetricError(f"{place} does not answer as an HTTP server") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        told = quoted(str(error), login) or type(error).__name__
        raise MetricError(f"{place} cannot be asked: {told}") from error


def _headers(headers: Mapping[str, str], login: MetricLogin | None) -> dict[str, str]:
    sent = {"Accept": "application/json", "Cache-Control": "no-cache", **headers}
    if login is not None:
        sent.update(login.headers)
        if login.password and not login.user:
            sent["Authorization"] = f"Bearer {login.password}"
    return {**sent, **HEADERS}


async def _content(response: httpx.Response, place: str) -> bytes:
    if response.has_redirect_location:
        raise MetricError(f"{place} redirects elsewhere, which is not followed; write the right address")
    try:
        return await read_answer(response, _LONGEST_BODY)
    except UnreadableAnswerError as error:
        raise MetricError(f"{place} {error}; ask for less") from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    try:
        return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise MetricError(f"{_shown(url)} is not an address: {error}") from error


def _shown(url: str) -> str:
    return url.partition("?")[0]
