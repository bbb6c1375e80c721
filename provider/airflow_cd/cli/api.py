"""Talks to the Airflow API as the user who types the command."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from airflow_cd.cli.login import TOKEN_VARIABLE, given_token, password_of, subject_of
from airflow_cd.cli.repeats import NoAnswerError, Patience, repeated

if TYPE_CHECKING:
    import httpx

PATIENCE = Patience()
_PAGE = 100
_OTHER_ADDRESS = "--api-url names another address."
_T = TypeVar("_T")


class RefusedError(SystemExit):
    """Raised when Airflow refuses a request; it ends the command with one sentence. ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """
    The public REST API.

    A server can be too busy to answer. Requests that read are sent again then. A request that writes is sent
    with :meth:`once`, by a function for :meth:`repeated` that finds out whether the one before arrived.

    Every method raises :class:`RefusedError` when Airflow refuses, ``SystemExit`` when it does not answer.
    """

    def __init__(self, client: httpx.Client, patience: Patience) -> None:
        self._client, self._patience = client, patience
        self._has_answered = False
        self.user: str | None = None

    def log_in(self, args: Namespace) -> None:
        """
        Log in as ``--user``, or as the owner of the token in ``AIRFLOW_CD_TOKEN``.

        A decision is worth what is known about the user who took it, so there is no way around the login.

        :raises SystemExit: no user is named, or Airflow does not accept the login
        """
        token = self._new_token(args.user) if args.user else given_token()
        self.user = subject_of(token)
        self._client.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """Return the JSON object at ``/api/v2<path>``."""
        return self.repeated(lambda _: self.once("GET", path, params=params))

    def rows(self, path: str, key: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Yield the objects listed under ``key`` at ``/api/v2<path>``, of all pages."""
        offset, total = 0, 1
        while offset < total:
            page = self.get(path, limit=_PAGE, offset=offset, **params)
            if not page[key]:  # the list became shorter meanwhile
                return
            total, offset = int(page["total_entries"]), offset + len(page[key])
            yield from page[key]

    def once(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """
        Send one request to ``/api/v2<path>`` and return the answer.

        :param content: ``params`` or ``json``
        :raises NoAnswerError: there is no answer; the request may have arrived
        """
        return self._checked(self._sent(method, f"/api/v2{path}", **content))

    def repeated(self, attempt: Callable[[bool], _T], unknown: str = "") -> _T:
        """
        Return what ``attempt`` returns, as soon as Airflow answers.

        :param attempt: is called with whether it is a repetition
        :param unknown: for the user, when Airflow never answers: what may have happened, and what to do
        """
        try:
            return repeated(attempt, self._patience)
        except NoAnswerError as error:
            attempts = f"in the last of {len(self._patience.starts)} attempts"
            said = f"The Airflow API at {self.address('')} {error}, {attempts}. Is it up? {_OTHER_ADDRESS}"
            raise SystemExit(f"{said} {unknown}".rstrip()) from error

    def check_enabled(self, dag_id: str) -> None:
        """
        Make sure that the DAG is not paused: a run or an answer would wait without a word.

        :raises SystemExit: it is paused
        """
        if self.get(f"/dags/{quote(dag_id)}")["is_paused"]:
            raise SystemExit(
                f"{dag_id} is paused: enable it in the UI, or with `airflow dags unpause {dag_id}`."
            )

    def address(self, path: str) -> str:
        """Return the address of a page of the UI."""
        return f"{str(self._client.base_url).rstrip('/')}{path}"

    def _new_token(self, user: str) -> str:
        login = {"username": user, "password": password_of(user)}
        response = self.repeated(lambda _: self._sent("POST", "/auth/token", json=login))
        if response.is_error:
            raise SystemExit(f"Airflow does not accept the login of {user!r} (HTTP {response.status_code})")
        return str(self._content(response)["access_token"])

    def _sent(self, method: str, path: str, **content: Any) -> httpx.Response:
        import httpx

        try:
            response = self._client.request(method, path, **content)
        except httpx.ConnectTimeout as error:
            raise NoAnswerError(f"cannot be reached within {self._patience.connect:g} s") from error
        except httpx.TimeoutException as error:
            raise NoAnswerError(f"did not answer within {self._patience.answer:g} s") from error
        except httpx.ConnectError as error:
            # At first the address is the likely mistake; later the server is restarting.
            if not self._has_answered:
                raise SystemExit(self._unreachable(error)) from error
            raise NoAnswerError(f"cannot be reached ({error})") from error
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise NoAnswerError(f"closed the connection ({error})") from error
        except httpx.HTTPError as error:
            raise SystemExit(self._unreachable(error)) from error
        self._has_answered = True
        if _is_busy(response):
            raise NoAnswerError(f"answered with HTTP {response.status_code}")
        return response

    def _checked(self, response: httpx.Response) -> dict[str, Any]:
        """Return the answer. :raises RefusedError: it is a refusal"""
        if not response.is_error:
            return self._content(response)
        status, detail = response.status_code, _detail(response)
        # Airflow answers 403 to what is no token, as to what the user is not allowed to do.
        if status == 401 or (status == 403 and "JWT" in detail):
            raise RefusedError(
                status,
                f"Airflow does not accept the token (HTTP {status}, {detail}): give --user, or put a new "
                f"token into {TOKEN_VARIABLE}.",
            )
        raise RefusedError(status, f"Airflow refuses (HTTP {status}): {detail}")

    def _content(self, response: httpx.Response) -> dict[str, Any]:
        """Return the JSON object. :raises SystemExit: there is none, as with a proxy's login page"""
        if response.is_redirect:
            place = response.headers.get("location", "another place")
            raise SystemExit(f"{self.address('')} redirects to {place}. {_OTHER_ADDRESS}")
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SystemExit(
                f"{self.address('')} is no Airflow API: it did not answer with JSON. {_OTHER_ADDRESS}"
            )
        return answer

    def _unreachable(self, error: Exception) -> str:
        return (
            f"The Airflow API at {self.address('')} does not answer ({error}): is the API server up? "
            f"{_OTHER_ADDRESS}"
        )


@contextmanager
def logged_in(args: Namespace) -> Iterator[AirflowApi]:
    """
    Open the API as ``--user``, or as the owner of the token in ``AIRFLOW_CD_TOKEN``.

    :raises SystemExit: no user is named, the login is refused, or there is no answer
    """
    import httpx

    patience = PATIENCE
    timeout = httpx.Timeout(patience.answer, connect=patience.connect)
    try:
        client = httpx.Client(base_url=_api_url(args), timeout=timeout)
    except httpx.InvalidURL as error:
        raise SystemExit(f"{_api_url(args)!r} is no address ({error}). {_OTHER_ADDRESS}") from error
    with client:
        api = AirflowApi(client, patience)
        api.log_in(args)
        yield api


def _api_url(args: Namespace) -> str:
    from airflow.configuration import conf

    return str(args.api_url or conf.get("api", "base_url", fallback="") or "http://localhost:8080")


def _is_busy(response: httpx.Response) -> bool:
    """Return whether the same request may be answered in a moment."""
    if response.status_code != 500:
        return response.status_code in (502, 503, 504)
    # The database was locked, or the server gives no reason. Other reasons stay the same.
    return "json" not in response.headers.get("content-type", "") or "database" in _detail(response).lower()


def _detail(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.text[:500]
    return str(answer.get("detail", answer) if isinstance(answer, dict) else answer)
