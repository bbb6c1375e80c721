"""Which artifact stores there are, by URL scheme; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from airflow_cd.exceptions import ArtifactError

if TYPE_CHECKING:
    from airflow_cd.stores.base import ArtifactStore

STORES = {"file": "airflow_cd.stores.filesystem:FilesystemStore"}


def open_store(url: str) -> ArtifactStore:
    """
    Return the store at this URL.

    :raises ArtifactError: the scheme is unknown
    """
    scheme, found, _ = url.partition("://")
    scheme = scheme.lower()
    if not found or scheme not in STORES:
        # Of a URL only the scheme is shown: the rest may hold a password.
        what = f"{scheme}://..." if found else repr(url[:100])
        raise ArtifactError(f"no artifact store for {what}; known schemes: {', '.join(sorted(STORES))}")
    module, _, attribute = STORES[scheme].partition(":")
    store: ArtifactStore = getattr(import_module(module), attribute)(url)
    return store
