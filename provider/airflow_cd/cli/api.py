"""Talks to the Airflow API as the user who types the command."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getpass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx

TOKEN_VARIABLE = "AIRFLOW_CD_TOKEN"
PASSWORD_VARIABLE = "AIRFLOW_CD_PASSWORD"
_PAGE = 100


class RefusedError(SystemExit):
    """Raised when Airflow refuses a request; it ends the command with one sentence. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """
    The public REST API, logged in.

    Every method raises :class:`RefusedError` when Airflow refuses.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return the JSON object at ``/api/v2<path>``."""
        return self._request("GET", path, params=params)

    def rows(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the objects listed under ``key`` at ``/api/v2<path>``, of all pages."""
        offset, total = 0, 1
        while offset < total:
            page = self.get(path, limit=_PAGE, offset=offset, **params)
            if not page[key]:  # the list became shorter meanwhile
                return
            total, offset = int(page["total_entries"]), offset + len(page[key])
            yield from page[key]

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post to ``/api/v2<path>`` and return the answer."""
        return self._request("POST", path, json=body)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Patch ``/api/v2<path>`` and return the answer."""
        return self._request("PATCH", path, json=body)

    def check_enabled(self, dag_id: str) -> None:
        """
        Make sure that the DAG goes on when it is told to: a run or an answer would wait, and say nothing.

        :raises SystemExit: it is paused
        """
        if self.get(f"/dags/{quote(dag_id)}")["is_paused"]:
            raise SystemExit(
                f"{dag_id} is paused: enable it in the UI, or with `airflow dags unpause {dag_id}`."
            )

    def address(self, path: str) -> str:
        """Return the address of a page of the UI."""
        return f"{str(self._client.base_url).rstrip('/')}{path}"

    def _request(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        response = self._client.request(method, f"/api/v2{path}", **kwargs)
        if response.is_error:
            status, detail = response.status_code, _detail(response)
            # Of a token that is not one Airflow says 403, as of what somebody may not do.
            if status == 401 or (status == 403 and "JWT" in detail):
                raise RefusedError(
                    status,
                    f"Airflow does not accept the token (HTTP {status}, {detail}): give --user, or put a new "
                    f"token into {TOKEN_VARIABLE}.",
                )
            raise RefusedError(status, f"Airflow refuses (HTTP {status}): {detail}")
        answer: dict[str, Any] = response.json()
        return answer


@contextmanager
def logged_in(args: Namespace) -> Iterator[Api]:
    """
    Open the API as ``--user``, or as the owner of the token in ``AIRFLOW_CD_TOKEN``.

    :raises SystemExit: nobody is named, the login is refused, or there is no answer
    """
    import httpx

    with httpx.Client(base_url=_api_url(args), timeout=30) as client:
        try:
            client.headers["Authorization"] = f"Bearer {_token(client, args)}"
            yield Api(client)
        except httpx.HTTPError as error:
            raise SystemExit(
                f"The Airflow API at {client.base_url} does not answer ({error}): is the API server up? "
                "--api-url names another address."
            ) from error


def has_login(args: Namespace) -> bool:
    """Return whether the command says who types it."""
    return bool(args.user or os.environ.get(TOKEN_VARIABLE))


def _api_url(args: Namespace) -> str:
    from airflow.configuration import conf

    return str(args.api_url or conf.get("api", "base_url", fallback="") or "http://localhost:8080")


def _token(client: httpx.Client, args: Namespace) -> str:
    """Log in: a decision is worth what is known about who took it, so there is no way around the login."""
    if not args.user:
        if token := os.environ.get(TOKEN_VARIABLE):
            return token
        raise SystemExit(f"Who are you? Give --user, or an access token in {TOKEN_VARIABLE}.")
    password = os.environ.get(PASSWORD_VARIABLE) or getpass(f"Password of {args.user}: ")
    response = client.post("/auth/token", json={"username": args.user, "password": password})
    if response.is_error:
        raise SystemExit(f"Airflow does not accept the login of {args.user!r} (HTTP {response.status_code})")
    return str(response.json()["access_token"])


def _detail(response: httpx.Response) -> str:
    if "json" not in response.headers.get("content-type", ""):
        return response.text[:500]
    answer = response.json()
    return str(answer.get("detail", answer) if isinstance(answer, dict) else answer)
