"""Which artifact stores there are, by URL scheme; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from airflow_cd.exceptions import ArtifactError

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore

STORES = {"file": "airflow_cd.artifacts.filesystem:FilesystemStore"}


def open_store(url: str) -> ArtifactStore:
    """Return the store at this URL. :raises ArtifactError: the scheme is unknown"""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in STORES:
        raise ArtifactError(f"no artifact store for {url!r}; known schemes: {', '.join(sorted(STORES))}")
    module, _, attribute = STORES[scheme].partition(":")
    store: ArtifactStore = getattr(import_module(module), attribute)(url)
    return store
