"""The stores that the conformance suites run on. A new store is one more row in STORES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_cd.stores.base import ArtifactStore
from airflow_cd.stores.registry import open_store


class Row(NamedTuple):
    """
    How the suites get at one kind of store.

    :param url: URL of an empty store, given a folder of the test's own
    :param change: replaces the stored bytes of a digest behind the store's back
    """

    url: Callable[[Path], str]
    change: Callable[[ArtifactStore, str, bytes], None]


def change_file(store: ArtifactStore, digest: str, content: bytes) -> None:
    value = digest.removeprefix("sha256:")
    (store.root / "blobs" / "sha256" / value[:2] / value[2:]).write_bytes(content)  # type: ignore[attr-defined]


STORES = {"file": Row(url=lambda folder: (folder / "a store").as_uri(), change=change_file)}


@pytest.fixture
def stores() -> dict[str, Row]:
    return STORES


@pytest.fixture(params=sorted(STORES))
def row(request: pytest.FixtureRequest) -> Row:
    return STORES[request.param]


@pytest.fixture
def store(row: Row, tmp_path: Path) -> ArtifactStore:
    return open_store(row.url(tmp_path))
