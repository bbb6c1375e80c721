"""What every artifact store does; the stores are the rows in conftest.py."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError
from airflow_cd.stores.base import ArtifactStore
from airflow_cd.stores.registry import STORES as REGISTERED

MEGABYTE = 1024 * 1024


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_every_registered_store_is_tested(stores: dict[str, Any]) -> None:
    assert set(stores) == set(REGISTERED)


def test_bytes_come_back(store: ArtifactStore, tmp_path: Path) -> None:
    assert not store.has(digest_of(b"hello"))
    digest = store.put_bytes(b"hello")
    assert digest == digest_of(b"hello") == store.put_bytes(b"hello")
    assert store.has(digest)
    assert store.get_bytes(digest) == b"hello"
    store.get_file(digest, tmp_path / "new folder" / "out")
    assert (tmp_path / "new folder" / "out").read_bytes() == b"hello"
    assert store.get_bytes(store.put_bytes(b"")) == b""


def test_an_existing_file_is_replaced(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    store.get_file(store.put_bytes(b"after"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"after"


def test_large_files_pass_through_little_memory(store: ArtifactStore, tmp_path: Path) -> None:
    large = tmp_path / "large"
    block = os.urandom(MEGABYTE)
    with large.open("wb") as target:
        for _ in range(50):
            target.write(block)
    tracemalloc.start()
    try:
        digest = store.put_file(large)
        store.get_file(digest, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * MEGABYTE
    assert digest == digest_of(large.read_bytes()) == digest_of((tmp_path / "out").read_bytes())


def test_what_is_not_there_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=digest_of(b"nothing")):
        store.get_bytes(digest_of(b"nothing"))
    for get in (store.get_file, store.get_unverified):
        with pytest.raises(ArtifactNotFoundError):
            get(digest_of(b"nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArtifactError, match="nowhere"):
        store.put_file(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"evil", b"goo", b""])
def test_changed_bytes_are_refused(store: ArtifactStore, row: Any, tmp_path: Path, content: bytes) -> None:
    digest = store.put_bytes(b"good")
    row.change(store, digest, content)
    (tmp_path / "out").write_text("before")
    for read in (store.get_bytes, lambda wanted: store.get_file(wanted, tmp_path / "out")):
        with pytest.raises(ArtifactCorruptError, match=digest_of(content)):
            read(digest)
    assert (tmp_path / "out").read_text() == "before"
    store.get_unverified(digest, tmp_path / "as it is")
    assert (tmp_path / "as it is").read_bytes() == content
    # Building the same thing again mends it.
    store.put_bytes(b"good")
    assert store.get_bytes(digest) == b"good"


@pytest.mark.parametrize(
    "digest", ["latest", "sha256:" + "A" * 64, "sha256:../../etc/passwd", "md5:" + "a" * 64, "a" * 64 + "\n"]
)
def test_only_digests_are_accepted(store: ArtifactStore, tmp_path: Path, digest: str) -> None:
    for use in (store.get_bytes, store.has, lambda wanted: store.get_file(wanted, tmp_path / "out")):
        with pytest.raises(ArtifactError, match="not a digest"):
            use(digest)


def test_references_are_replaced(store: ArtifactStore) -> None:
    assert store.get_ref("builds/abc") is None
    store.put_ref("builds/abc", {"workspace": "x", "more": [1, None, "ä"]})
    assert store.get_ref("builds/abc") == {"workspace": "x", "more": [1, None, "ä"]}
    store.put_ref("builds/abc", {"workspace": "y"})
    assert store.get_ref("builds/abc") == {"workspace": "y"}
    assert store.get_ref("builds") is None
    assert store.get_ref("builds/abc/deeper") is None


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "A", "a/../b", "", "a/", ".hidden", "a\n", "ä"])
def test_references_stay_inside(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactError, match="not a reference name"):
        store.put_ref(name, {})
    with pytest.raises(ArtifactError, match="not a reference name"):
        store.get_ref(name)
