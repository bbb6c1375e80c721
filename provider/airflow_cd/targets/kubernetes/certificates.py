"""How long certificates that a cluster is reached by are valid."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

_SECONDS = 10


def certificates(client: ApiClient) -> dict[str, datetime]:
    """
    Return when certificates end: the one the API server shows, and the one this client shows.

    One that cannot be had, as behind a proxy, is left out. Those of the nodes are not told by the API.
    """
    configuration = client.configuration
    found = {
        "the API server's": _served(configuration.host),
        "the one used here": _own(configuration.cert_file),
    }
    return {name: end for name, pem in found.items() if pem and (end := _end(pem))}


def _served(url: str) -> str | None:
    import ssl

    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname is None:
        return None
    try:
        return ssl.get_server_certificate((parts.hostname, parts.port or 443), timeout=_SECONDS)
    except OSError as error:
        log.info("The API server's certificate was not looked at: %s", error)
        return None


def _own(path: str | None) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError):
        return None


def _end(pem: str) -> datetime | None:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return None
