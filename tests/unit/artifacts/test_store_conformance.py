"""What every artifact store does. A new store is one more row in STORES."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_cd.artifacts.base import ArtifactStore
from airflow_cd.artifacts.registry import STORES as REGISTERED
from airflow_cd.artifacts.registry import open_store
from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError

# scheme -> URL of an empty store in a folder
STORES: dict[str, Callable[[Path], str]] = {"file": lambda folder: (folder / "a store").as_uri()}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return open_store(STORES[request.param](tmp_path))


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_every_registered_store_is_tested() -> None:
    assert set(STORES) == set(REGISTERED)


def test_bytes_come_back(store: ArtifactStore, tmp_path: Path) -> None:
    assert not store.has(digest_of(b"hello"))
    digest = store.put_bytes(b"hello")
    assert digest == digest_of(b"hello") == store.put_bytes(b"hello")
    assert store.has(digest)
    assert store.get_bytes(digest) == b"hello"
    store.get_file(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"hello"


def test_large_files_come_back(store: ArtifactStore, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1024 * 1024) * 20)
    digest = store.put_file(large)
    store.get_file(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == large.read_bytes()


def test_what_is_not_there_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=digest_of(b"nothing")):
        store.get_bytes(digest_of(b"nothing"))
    with pytest.raises(ArtifactNotFoundError):
        store.get_file(digest_of(b"nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "digest", ["latest", "sha256:" + "A" * 64, "sha256:../../etc/passwd", "md5:" + "a" * 64]
)
def test_only_digests_are_accepted(store: ArtifactStore, digest: str) -> None:
    with pytest.raises(ArtifactError, match="not a digest"):
        store.get_bytes(digest)


def test_references_are_replaced(store: ArtifactStore) -> None:
    assert store.get_ref("builds/abc") is None
    store.put_ref("builds/abc", {"workspace": "x"})
    store.put_ref("builds/abc", {"workspace": "y"})
    assert store.get_ref("builds/abc") == {"workspace": "y"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "A", "a/../b", ""])
def test_references_stay_inside(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactError, match="not a reference name"):
        store.put_ref(name, {})


def test_many_writers_at_once(store: ArtifactStore) -> None:
    contents = [b"%d" % (i % 5) * 100_000 for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(store.put_bytes, contents))
    assert [store.get_bytes(digest) for digest in digests] == contents


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(ArtifactError, match="ftp://.*known schemes: file"):
        open_store("ftp://host/x")


class TestFilesystem:
    """What only the folder can get wrong."""

    def test_changed_bytes_are_refused(self, tmp_path: Path) -> None:
        store = open_store(tmp_path.as_uri())
        digest = store.put_bytes(b"good")
        (blob,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        blob.write_bytes(b"evil")
        for read in (store.get_bytes, lambda wanted: store.get_file(wanted, tmp_path / "out")):
            with pytest.raises(ArtifactCorruptError, match=digest_of(b"evil")):
                read(digest)
        assert not (tmp_path / "out").exists()
        # Building the same thing again mends it.
        store.put_bytes(b"good")
        assert store.get_bytes(digest) == b"good"

    def test_a_killed_writer_leaves_no_blob(self, tmp_path: Path) -> None:
        code = """
import sys
from airflow_cd.artifacts.filesystem import FilesystemStore
def chunks():
    yield b"half"
    print("writing", flush=True)
    sys.stdin.read()
FilesystemStore(sys.argv[1])._put(chunks(), 8)
"""
        argv = [sys.executable, "-c", code, tmp_path.as_uri()]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
            writer.send_signal(signal.SIGKILL)
        assert not (tmp_path / "blobs").exists()
        store = open_store(tmp_path.as_uri())
        assert store.get_bytes(store.put_bytes(b"half")) == b"half"

    def test_a_full_disk_is_said_and_leaves_nothing(self, tmp_path: Path) -> None:
        mount = tmp_path / "small"
        mount.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)]
        if os.getuid() != 0 or subprocess.run(argv, capture_output=True).returncode != 0:
            pytest.skip("a small file system can be mounted by root only")
        try:
            store = open_store(mount.as_uri())
            with pytest.raises(ArtifactError, match="disk is full: 1000000 bytes"):
                store.put_bytes(b"x" * 1_000_000)
            assert not [path for path in mount.rglob("*") if path.is_file()]
            assert store.get_bytes(store.put_bytes(b"small")) == b"small"
        finally:
            subprocess.run(["umount", str(mount)], check=True)
