"""What only a store in a folder can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError
from airflow_cd.stores.filesystem import FilesystemStore

DAY = 24 * 3600


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore((tmp_path / "store").as_uri())


def test_the_layout_is_what_others_may_rely_on(store: FilesystemStore) -> None:
    digest = store.put_bytes(b"hello").removeprefix("sha256:")
    store.put_ref("builds/abc", {})
    assert files(store.root) == [f"blobs/sha256/{digest[:2]}/{digest[2:]}", "refs/builds/abc.json"]
    assert (store.root / "refs/builds/abc.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "url", ["file://host/x", "file:relative", "file:///a#b", "file:///a?b", "file:///a%00b", "/x", "s3://x"]
)
def test_a_url_that_is_no_folder_is_refused(url: str) -> None:
    with pytest.raises(ArtifactError, match="names no folder on this machine"):
        FilesystemStore(url)


def test_escaped_characters_are_part_of_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?d%20e"
    FilesystemStore(folder.as_uri()).put_bytes(b"x")
    assert len(files(folder)) == 1


def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    store = FilesystemStore(small_disk.as_uri())
    with pytest.raises(ArtifactError, match="disk is full: 1000000 bytes are needed"):
        store.put_bytes(b"x" * 1_000_000)
    with pytest.raises(ArtifactError, match="disk is full"):
        store.put_ref("large", {"x": "x" * 1_000_000})
    assert files(small_disk) == []
    assert store.get_bytes(store.put_bytes(b"small")) == b"small"


def test_a_disk_that_is_too_full_to_copy_to_keeps_what_it_has(
    store: FilesystemStore, small_disk: Path
) -> None:
    digest = store.put_bytes(b"x" * 1_000_000)
    (small_disk / "out").write_text("before")
    with pytest.raises(ArtifactError, match="disk is full: 1000000 bytes are needed"):
        store.get_file(digest, small_disk / "out")
    assert files(small_disk) == ["out"]
    assert (small_disk / "out").read_text() == "before"


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = FilesystemStore((tmp_path / "file" / "store").as_uri())
    with pytest.raises(ArtifactError, match="cannot write to artifact store"):
        store.put_bytes(b"x")
    with pytest.raises(ArtifactError, match="cannot read"):
        store.get_bytes("sha256:" + "0" * 64)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"'])
def test_a_damaged_reference_is_not_taken_for_a_missing_one(store: FilesystemStore, content: str) -> None:
    store.put_ref("a", {"x": 1})
    (store.root / "refs/a.json").write_text(content)
    with pytest.raises(ArtifactCorruptError, match="'a'"):
        store.get_ref("a")


def test_what_killed_writers_left_is_swept_after_a_day(store: FilesystemStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    os.mkfifo(source)
    code = "import sys; from pathlib import Path; from airflow_cd.stores.filesystem import FilesystemStore; "
    code += "FilesystemStore(sys.argv[1]).put_file(Path(sys.argv[2]))"
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", code, store.url, str(source)])
        with source.open("wb") as pipe:
            pipe.write(b"x" * 1_000_000)
            pipe.flush()
            writer.kill()
            writer.wait()
    old, young = sorted((store.root / "incoming").iterdir())
    os.utime(old, (time.time() - 2 * DAY, time.time() - 2 * DAY))
    store.put_bytes(b"x")
    assert list((store.root / "incoming").iterdir()) == [young]
