"""Requests of httpx that go only to addresses that :mod:`airflow_cd.processes.addresses` allows."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import getproxies, proxy_bypass

import httpx

from airflow_cd.processes.addresses import lookup, resolve
from airflow_cd.processes.http_reading import HEADERS, tls_context

_PORTS = {"http": 80, "https": 443}


class GuardedTransport(httpx.AsyncHTTPTransport):
    """
    Resolves host names itself, and connects to what it checked.

    A check before the request alone would not do: the name could be another address a moment later. Where a
    proxy is asked, that resolves, and says whom it asks.

    :param secure: whether a certificate may have to be verified
    :param proxy: of :func:`proxy_of`
    """

    def __init__(self, *, secure: bool, proxy: str | None = None) -> None:
        super().__init__(verify=tls_context(secure), trust_env=False, proxy=proxy)
        self._proxied = proxy is not None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first address of its host that accepts a connection."""
        if self._proxied:
            return await super().handle_async_request(request)
        addresses = await resolve(*_place(request))
        for address in addresses[:-1]:
            try:
                return await super().handle_async_request(_sent_to(address, request))
            except httpx.ConnectError:
                continue
        return await super().handle_async_request(_sent_to(addresses[-1], request))


class GuardedSyncTransport(httpx.HTTPTransport):
    """
    The same for requests that block, with answers that are uncompressed and of limited length.

    :param longest: bytes of an answer at most
    :param proxy: of :func:`proxy_of`
    """

    def __init__(self, *, longest: int, proxy: str | None = None) -> None:
        super().__init__(verify=tls_context(True), trust_env=False, proxy=proxy)
        self._longest, self._proxied = longest, proxy is not None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first address of its host that accepts a connection."""
        request.headers["Accept-Encoding"] = HEADERS["Accept-Encoding"]
        answer = self._answer(request)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            answer.close()
            raise httpx.DecodingError("answers compressed, although asked not to", request=request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        answer.stream = _Limited(answer.stream, self._longest)
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self._proxied:
            return super().handle_request(request)
        addresses = lookup(*_place(request))
        for address in addresses[:-1]:
            try:
                return super().handle_request(_sent_to(address, request))
            except httpx.ConnectError:
                continue
        return super().handle_request(_sent_to(addresses[-1], request))


class _Limited(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, longest: int) -> None:
        self._stream, self._left, self._longest = stream, longest, longest

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx.ReadError(f"answers with more than {self._longest // 1024} KiB")
            yield chunk

    def close(self) -> None:
        self._stream.close()


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment (``HTTPS_PROXY``, ``NO_PROXY``) names for this address."""
    parts = httpx.URL(url)
    if proxy_bypass(parts.netloc.decode()):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _place(request: httpx.Request) -> tuple[str, int]:
    return request.url.host, request.url.port or _PORTS.get(request.url.scheme, 80)


def _sent_to(address: str, request: httpx.Request) -> httpx.Request:
    """Return the request to an address instead of the name; ``Host`` and certificate are the name's."""
    if address == request.url.host:
        return request
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
