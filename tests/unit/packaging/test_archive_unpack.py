"""Unpacking archives from outside: inside the folder, or not at all."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError
from airflow_cd.packaging.archive import unpack

Member = tuple[str, bytes, str]  # name, type, content or target of a link
FILE, LINK, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


def write(path: Path, members: Sequence[Member]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o700
            if kind == FILE:
                info.size = len(text)
            else:
                info.linkname = text
            archive.addfile(info, io.BytesIO(text.encode()))


def refused(path: Path, box: Path, **limits: int) -> str:
    box.mkdir(exist_ok=True)
    with pytest.raises(ArtifactError) as caught:
        unpack(path, box / "out", **limits)
    assert list(box.iterdir()) == []
    return f"{type(caught.value).__name__}: {caught.value}"


def raw(path: Path, *blocks: bytes) -> None:
    path.write_bytes(gzip.compress(b"".join(blocks)))


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


CHAINS = {
    "up through a link": [("d/e/x", FILE, ""), ("d/e/up", LINK, "../.."), ("d/e/out", LINK, "up/../../d")],
    "a link on a link": [("a", LINK, "."), ("a/b", LINK, "..")],
    "a link where a folder is": [("a/b", FILE, ""), ("a", LINK, "b")],
    "a file where a link is": [("a", LINK, "b"), ("./a", FILE, "evil")],
    "a folder where a link is": [("b/x", FILE, ""), ("a", LINK, "b"), ("a", FOLDER, "")],
    "an empty target": [("a", LINK, "")],
    "a file that is the folder": [(".", FILE, "evil")],
    "a file below a file": [("a", FILE, "x"), ("a/b", FILE, "evil")],
    "a hard link to a file of its own": [("a", FILE, "x"), ("b", tarfile.LNKTYPE, "a")],
    "the same name in other words": [("a/b", FILE, "x"), ("a//./b", FILE, "evil")],
}


@pytest.mark.parametrize("members", CHAINS.values(), ids=CHAINS)
def test_what_is_not_a_plain_tree_is_refused(tmp_path: Path, members: list[Member]) -> None:
    write(tmp_path / "x", members)
    refused(tmp_path / "x", tmp_path / "box")


PART = st.sampled_from(["a", "b", "c"])
NAME = st.lists(PART, min_size=1, max_size=3).map("/".join)
TARGET = st.lists(st.sampled_from(["a", "b", "c", "..", ".."]), min_size=1, max_size=5).map("/".join)
TREE = st.lists(
    st.one_of(st.tuples(NAME, st.just(LINK), TARGET), st.tuples(NAME, st.just(FILE), st.just("x")))
)


@given(members=TREE)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_chain_of_links_leads_outside(
    members: list[Member], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("chain").resolve()
    write(base / "x", members)
    try:
        unpack(base / "x", base / "box" / "out")
    except ArtifactError:
        return
    inside = str(base / "box" / "out")
    for path in (base / "box" / "out").rglob("*"):
        assert os.path.commonpath([os.path.realpath(path), inside]) == inside


def test_other_tools_archives_unpack(tmp_path: Path) -> None:
    members = [("./", FOLDER, ""), ("./bin/", FOLDER, ""), ("./bin/x", FILE, "run"), ("./y", LINK, "bin/x")]
    write(tmp_path / "x", members)
    before = os.umask(0o077)
    try:
        unpack(tmp_path / "x", tmp_path / "out")
    finally:
        os.umask(before)
    assert (tmp_path / "out/y").read_text() == "run"
    modes = [(tmp_path / "out" / name).stat().st_mode & 0o7777 for name in (".", "bin", "bin/x")]
    assert modes == [0o755, 0o755, 0o755]


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "x", [("a", FILE, "new")])
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("out", "link"):
        with pytest.raises(ArtifactError, match="it exists"):
            unpack(tmp_path / "x", tmp_path / name)
    assert list((tmp_path / "out").iterdir()) == []


def test_limits_are_exact(tmp_path: Path) -> None:
    write(tmp_path / "x", [("a", FILE, "12345"), ("b", FILE, "12345")])
    assert "more than 9 bytes" in refused(tmp_path / "x", tmp_path / "box", max_bytes=9)
    assert "or 1 members" in refused(tmp_path / "x", tmp_path / "box", max_members=1)
    unpack(tmp_path / "x", tmp_path / "out", max_bytes=10, max_members=2)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_may_not_be_a_bomb(tmp_path: Path, kind: bytes) -> None:
    size = 64 * 1024 * 1024
    raw(tmp_path / "x", header("x", kind, size), bytes(size), bytes(1024))
    tracemalloc.start()
    try:
        said = refused(tmp_path / "x", tmp_path / "box")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said.startswith("UnsafeArchiveError")
    assert peak < 8 * 1024 * 1024


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [FILE, tarfile.XHDTYPE, b"?"])
def test_a_negative_size_does_not_go_back(tmp_path: Path, kind: bytes) -> None:
    """Older Pythons read the same header for ever (CVE-2025-8194)."""
    raw(tmp_path / "x", header("x", kind, -512), header("y", FILE, 0), bytes(1024))
    refused(tmp_path / "x", tmp_path / "box")


def test_a_file_larger_than_its_archive_is_refused(tmp_path: Path) -> None:
    raw(tmp_path / "x", header("x", FILE, 10**6), b"short")
    refused(tmp_path / "x", tmp_path / "box")


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    raw(tmp_path / "x", header("x", tarfile.GNUTYPE_SPARSE, 0), bytes(1024))
    refused(tmp_path / "x", tmp_path / "box")


def test_padding_is_accepted_and_anything_else_behind_the_end_is_not(tmp_path: Path) -> None:
    end = bytes(1024)
    raw(tmp_path / "good", header("a", FILE, 0), end, bytes(10240))
    unpack(tmp_path / "good", tmp_path / "out")
    raw(tmp_path / "more", header("a", FILE, 0), end, header("b", FILE, 0))
    assert "behind its end" in refused(tmp_path / "more", tmp_path / "box")
    raw(tmp_path / "zeros", header("a", FILE, 0), end, bytes(64 * 1024 * 1024))
    assert refused(tmp_path / "zeros", tmp_path / "box").startswith("UnsafeArchiveError")


def test_damage_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    write(tmp_path / "x", [("a", FILE, "some text " * 50), ("b", FILE, "more")])
    whole = gzip.compress(gzip.decompress((tmp_path / "x").read_bytes()))  # without a file name before it
    for cut in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:cut])
        refused(tmp_path / "cut", tmp_path / "box")
    for at in range(10, len(whole)):
        (tmp_path / "bent").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        refused(tmp_path / "bent", tmp_path / "box")


def test_messages_carry_no_control_characters(tmp_path: Path) -> None:
    write(tmp_path / "x", [("../\x1b[31m\nINFO all is well", FILE, "")])
    said = refused(tmp_path / "x", tmp_path / "box")
    assert said.isprintable()
    assert said.startswith(UnsafeArchiveError.__name__)
