"""A client of a registry, with the two ways registries ask for a login."""

from __future__ import annotations

import re
from collections.abc import Generator

import httpx

from airflow_cd.exceptions import ArtifactError

_TIMEOUT_SECONDS = 60
# What Docker calls it, and where its registry is.
_HOSTS = {"docker.io": "registry-1.docker.io"}
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


def registry_client(repository: str, login: tuple[str, str] | None, url: str | None = None) -> httpx.Client:
    """
    Return a client of the registry that a repository lies in.

    Plain HTTP is spoken with this machine only, as Docker engines do.

    :param repository: of an image, with its registry
    :param login: user and password
    :param url: where the registry is reached; default: made of its name
    """
    registry = repository.partition("/")[0]
    host = _HOSTS.get(registry, registry)
    is_here = host.rpartition(":")[0] in ("localhost", "127.0.0.1") or host in ("localhost", "127.0.0.1")
    return httpx.Client(
        base_url=url or f"{'http' if is_here else 'https'}://{host}",
        auth=RegistryAuth(login),
        timeout=_TIMEOUT_SECONDS,
        follow_redirects=True,
    )


def path_of(repository: str) -> str:
    """Return the repository's name within its registry."""
    return repository.partition("/")[2]


class RegistryAuth(httpx.Auth):
    """
    Answers a registry's challenge: with the login itself, or with a token that the login gets elsewhere.

    https://distribution.github.io/distribution/spec/auth/token/

    :param login: user and password; without one, a token for anybody is asked for
    """

    requires_response_body = True

    def __init__(self, login: tuple[str, str] | None) -> None:
        self._login = login
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and again where it is refused for want of (another) login."""
        if self._header is not None:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != 401:
            return
        kind, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if kind.lower() == "bearer":
            answer = yield self._token_request(dict(_CHALLENGE.findall(rest)))
            self._header = f"Bearer {_token(answer)}"
        elif kind.lower() == "basic" and self._login is not None:
            self._header = self._basic()
        else:
            return
        request.headers["Authorization"] = self._header
        yield request

    def _token_request(self, challenge: dict[str, str]) -> httpx.Request:
        realm = httpx.URL(challenge.get("realm", ""))
        for name in ("service", "scope"):
            if name in challenge:
                realm = realm.copy_add_param(name, challenge[name])
        headers = {"Authorization": self._basic()} if self._login else {}
        return httpx.Request("GET", realm, headers=headers)

    def _basic(self) -> str:
        assert self._login is not None
        return httpx.BasicAuth(*self._login)._auth_header


def _token(answer: httpx.Response) -> str:
    if not answer.is_success:
        said = f"{answer.status_code} {answer.text[:200]}"
        raise ArtifactError(f"{answer.request.url.host} gives no token: {said}")
    given = answer.json()
    return str(given.get("token") or given["access_token"])
