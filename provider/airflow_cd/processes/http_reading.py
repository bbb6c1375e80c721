"""How answers of HTTP servers are read: uncompressed, and no more than a limit, whatever the server sends."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

# Compressed, few bytes become many: 821 bytes of gzip within gzip took 800 MiB. A connection of its own each
# time: a server would close a kept one just while the next request is under way.
HEADERS = {"Accept-Encoding": "identity", "Connection": "close"}


class UnreadableAnswerError(ValueError):
    """Raised when an answer is compressed, or longer than the limit."""


async def read_answer(response: httpx.Response, longest: int, *, truncate: bool = False) -> bytes:
    """
    Return the body of an answer whose request was sent with :data:`HEADERS`.

    :param response: of a streamed request
    :param longest: bytes at most
    :param truncate: whether the beginning of a longer answer is enough
    :raises UnreadableAnswerError: it is compressed although that was not accepted, or longer
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UnreadableAnswerError("answers compressed, although asked not to")
    content = bytearray()
    async for chunk in response.aiter_raw(64 * 1024):
        content += chunk
        if len(content) > longest and truncate:
            return bytes(content[:longest])
        if len(content) > longest:
            raise UnreadableAnswerError(f"answers with more than {longest // 1024} KiB")
    return bytes(content)


def tls_context(secure: bool) -> ssl.SSLContext:
    """
    Return what httpx verifies certificates with: the system's store, or nothing where no URL is https.

    Reading the store takes as long as dozens of requests: it is read once per process, and only when it is
    needed. ``SSL_CERT_FILE`` names another one.
    """
    return _verifying() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _verifying() -> ssl.SSLContext:
    return ssl.create_default_context()
