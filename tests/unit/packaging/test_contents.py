"""Of a changed archive it is said which members differ."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError
from airflow_cd.packaging.archive import contents, differences, list_of, pack, parsed


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "src").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "src" / "app.py").write_text("print('hello')\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "latest").symlink_to("src/app.py")
    (folder / "big.bin").write_bytes(os.urandom(600_000))
    return folder


def packed(tree: Path, name: str = "release.tar.gz") -> Path:
    pack(tree, tree.parent / name, include=["**"])
    return tree.parent / name


def said(tree: Path, change: Callable[[Path], object]) -> str:
    """Pack, record, change the tree, pack again, and return what differs."""
    recorded = parsed(list_of(packed(tree)))
    change(tree)
    return differences(recorded, contents(packed(tree, "changed.tar.gz")))


def test_the_list_names_every_member_and_its_digest(tree: Path) -> None:
    document = list_of(packed(tree))
    members = json.loads(document)
    assert members["src/app.py"] == "sha256:03e693d9f2f687e0f40e36a8df7fcb4d1c22974012b7c2a55c000eb30f305824"
    assert members["run.sh"].startswith("sha256:") and members["run.sh"].endswith(" executable")
    assert (members["latest"], members["empty"]) == ("link:src/app.py", "folder")
    assert list_of(packed(tree)) == document


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: (tree / "src/app.py").write_text("evil"), "changed: 'src/app.py'"),
        (lambda tree: (tree / "evil.py").write_text("evil"), "added: 'evil.py'"),
        (lambda tree: (tree / "run.sh").unlink(), "removed: 'run.sh'"),
        (lambda tree: (tree / "run.sh").chmod(0o644), "changed: 'run.sh'"),
        (
            lambda tree: ((tree / "latest").unlink(), (tree / "latest").symlink_to("run.sh")),
            "changed: 'latest'",
        ),
        (lambda tree: (tree / "empty").rmdir(), "removed: 'empty'"),
        (
            lambda tree: ((tree / "src/app.py").rename(tree / "src/b.py"), (tree / "run.sh").write_text("x")),
            "changed: 'run.sh'; added: 'src/b.py'; removed: 'src/app.py'",
        ),
    ],
)
def test_what_differs_is_named(tree: Path, change: Callable[[Path], object], expected: str) -> None:
    assert said(tree, change) == expected


def test_many_names_are_counted(tree: Path) -> None:
    def change(tree: Path) -> None:
        for n in range(25):
            (tree / f"n{n:02}").touch()

    text = said(tree, change)
    assert "'n19' and 5 more" in text and "n20" not in text


def test_the_same_members_in_other_bytes(tree: Path) -> None:
    archive = packed(tree)
    recorded = parsed(list_of(archive))
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()), 1, mtime=1))
    assert "no member differs" in differences(recorded, contents(archive))


def test_a_cut_archive_says_what_could_not_be_read(tree: Path) -> None:
    archive = packed(tree)
    recorded = parsed(list_of(archive))
    os.truncate(archive, archive.stat().st_size // 2)
    text = differences(recorded, contents(archive))
    assert "not readable: " in text and "'src/app.py'" in text and "cannot be read to its end" in text
    assert "removed" not in text


def test_a_flipped_byte_is_narrowed_down(tree: Path) -> None:
    """Random bytes are stored, not compressed: the flip gives other content and a wrong checksum."""
    archive = packed(tree)
    recorded = parsed(list_of(archive))
    raw = bytearray(archive.read_bytes())
    raw[300_000] ^= 1
    archive.write_bytes(raw)
    text = differences(recorded, contents(archive))
    assert "'big.bin'" in text
    assert "cannot be read to its end" in text


@pytest.mark.parametrize("content", [b"", b"evil", b"\x1f\x8b\x08"])
def test_what_is_no_archive_is_said(tree: Path, content: bytes) -> None:
    archive = packed(tree)
    recorded = parsed(list_of(archive))
    archive.write_bytes(content)
    assert "is not a .tar.gz archive" in differences(recorded, contents(archive))
    with pytest.raises(ArtifactError, match="not a .tar.gz archive"):
        list_of(archive)


def test_hostile_names_are_shown_safely(tmp_path: Path) -> None:
    archive = tmp_path / "release.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("a\nINFO all is well", "../../etc/passwd"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    text = differences({}, contents(archive))
    assert "\n" not in text
    assert "added: 'a?INFO all is well'" in text and "would be written outside the folder" in text


@pytest.mark.parametrize("document", [b"", b"[]", b"\xff"])
def test_a_list_that_is_none_is_told(document: bytes) -> None:
    with pytest.raises(ArtifactCorruptError, match="list of members"):
        parsed(document)
