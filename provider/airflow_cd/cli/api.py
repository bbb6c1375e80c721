"""Calls the Airflow API as the user who runs the command, with retries, and starts runs only once."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import warnings
from argparse import Namespace
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from getpass import GetPassWarning, getpass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    import httpx

TOKEN_VARIABLE = "AIRFLOW_CD_TOKEN"
PASSWORD_VARIABLE = "AIRFLOW_CD_PASSWORD"


def has_login(args: Namespace) -> bool:
    """Return whether the command names its user."""
    return bool(args.user or os.environ.get(TOKEN_VARIABLE))


def given_token() -> str:
    """
    Return the access token from the environment.

    :raises SystemExit: there is none, or it cannot be one
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise SystemExit(f"No user is named: give --user, or put an access token into {TOKEN_VARIABLE}.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SystemExit(f"{TOKEN_VARIABLE} holds no access token: it contains spaces or control characters.")
    return token


def password_of(user: str) -> str:
    """
    Return the user's password, from the environment or the terminal.

    :raises SystemExit: there is no terminal, or its input ended
    :raises KeyboardInterrupt: the user pressed Ctrl-C
    """
    if password := os.environ.get(PASSWORD_VARIABLE):
        return password
    try:
        with warnings.catch_warnings():
            # Without a terminal, getpass would read the next line of standard input, whatever that is.
            warnings.simplefilter("error", GetPassWarning)
            return getpass(f"Password of {user}: ")
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    except (EOFError, OSError, GetPassWarning) as error:
        raise SystemExit(
            f"No terminal to ask for the password of {user!r}: put the password into {PASSWORD_VARIABLE}, "
            f"or leave out --user and put an access token into {TOKEN_VARIABLE}."
        ) from error


def subject_of(token: str) -> str | None:
    """Return the id of the user that Airflow's access tokens name, or ``None`` for another token."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


_T = TypeVar("_T")


class NoAnswerError(Exception):
    """Raised when a request has no answer: the server may have received it, or not. Says what happened."""


@dataclass(frozen=True)
class Patience:
    """
    How long a command waits for the API server: with the defaults, for about two minutes.

    :param connect: seconds for a connection
    :param answer: seconds for an answer
    :param starts: seconds from the first attempt to each one; an attempt that takes longer delays the next
    """

    connect: float = 10.0
    answer: float = 30.0
    starts: tuple[float, ...] = (0.0, 2.0, 10.0, 30.0)


def repeated(attempt: Callable[[bool], _T], patience: Patience) -> _T:
    """
    Return what ``attempt`` returns, as soon as it has an answer.

    :param attempt: is called with whether it is a repetition, and raises :class:`NoAnswerError`
    :raises NoAnswerError: the last attempt has no answer either
    """
    began, most, number = time.monotonic(), len(patience.starts), 0
    while True:
        time.sleep(max(0.0, began + patience.starts[number] - time.monotonic()))
        number += 1
        try:
            return attempt(number > 1)
        except NoAnswerError as error:
            if number == most:
                raise
            with suppress(OSError):  # nobody reads standard error
                print(
                    f"The Airflow API {error}; trying again ({number + 1} of {most})",
                    file=sys.stderr,
                    flush=True,
                )


PATIENCE = Patience()
_PAGE = 100
_OTHER_ADDRESS = "--api-url names another address."


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
        """
        Return the answer.

        :raises RefusedError: it is a refusal
        """
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
        """
        Return the JSON object.

        :raises SystemExit: there is none, as with a proxy's login page
        """
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


def start_run(api: AirflowApi, dag_id: str, conf: dict[str, Any]) -> str:
    """
    Start a run and return its id.

    The id is chosen here, so that Airflow refuses a repeated request whose predecessor arrived.

    :raises RefusedError: Airflow refuses
    :raises SystemExit: Airflow does not answer
    """
    run_id = f"cd__{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}_{secrets.token_hex(4)}"
    path = f"/dags/{quote(dag_id)}/dagRuns"
    body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}

    def attempt(is_repetition: bool) -> None:
        try:
            api.once("POST", path, json=body)
        except RefusedError as error:
            if not (is_repetition and error.status == 409 and _is_there(api, f"{path}/{run_id}")):
                raise

    page = api.address(f"/dags/{quote(dag_id)}/runs/{run_id}")
    api.repeated(attempt, unknown=f"The run may have started: look at {page} before you repeat the command.")
    return run_id


def _is_there(api: AirflowApi, path: str) -> bool:
    try:
        api.once("GET", path)
    except RefusedError as error:
        if error.status != 404:
            raise
        return False
    return True


Question = dict[str, Any]


def waiting_questions(
    api: AirflowApi, dag_id: str = "~", state: Sequence[str] = ("awaiting_input",)
) -> Iterator[Question]:
    """
    Yield the questions that wait for an answer, newest first, as Airflow's API returns them.

    :param dag_id: whose; ``~`` for those of all DAGs
    :param state: of the tasks that ask; a rollout is ``deferred``, since it is watched meanwhile
    """
    yield from api.rows(
        f"/dags/{quote(dag_id)}/dagRuns/~/hitlDetails",
        "hitl_details",
        response_received=False,
        state=list(state),
        order_by="-created_at",
    )


def stage_of(question: Question, task: str) -> str | None:
    """Return the environment the question is about, if a task of this name asks it."""
    # A train's own question is about no single environment or member: its stage is empty.
    stage, _, name = str(question["task_instance"]["task_id"]).rpartition(".")
    return stage if name == task else None
