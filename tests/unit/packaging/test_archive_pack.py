"""Packing: names, modes and bytes of any tree, whatever the machine."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError
from airflow_cd.packaging.archive import pack, unpack

# Lower case, for file systems that take `a` and `A` for the same; parts that are folders do not end in "f".
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Lu", "Lt", "Cs"]))
PART = TEXT.filter(lambda part: 0 < len(part.encode()) < 60 and part not in (".", ".."))
NAME = st.lists(PART.map(lambda part: part + "d"), max_size=3).flatmap(
    lambda folders: PART.map(lambda part: "/".join([*folders, part + "f"]))
)
TREE = st.dictionaries(NAME, st.tuples(st.binary(max_size=300), st.booleans()), max_size=6)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.rglob("*")
        if path.is_file()
    }


@given(tree=TREE, umask=st.sampled_from([0o000, 0o022, 0o027, 0o077]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_times_and_umask_do_not_matter(
    tree: dict[str, tuple[bytes, bool]], umask: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("trees")
    for number, names in enumerate((list(tree), list(reversed(tree)))):
        before = os.umask(umask if number else 0o022)
        try:
            write(base / str(number), tree, names, age=number * 1000)
            pack(base / str(number), base / f"{number}.tar.gz", include=["**"])
        finally:
            os.umask(before)
    assert digest(base / "0.tar.gz") == digest(base / "1.tar.gz")
    unpack(base / "0.tar.gz", base / "out")
    assert content(base / "out") == tree
    pack(base / "out", base / "again.tar.gz", include=["**"])
    assert digest(base / "again.tar.gz") == digest(base / "0.tar.gz")


def write(folder: Path, tree: dict[str, tuple[bytes, bool]], names: list[str], *, age: int) -> None:
    folder.mkdir()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree[name][0])
        if tree[name][1]:
            path.chmod(path.stat().st_mode | 0o100)
        os.utime(path, (age, age))


def test_processes_agree_whatever_their_environment(tmp_path: Path) -> None:
    write(
        tmp_path / "tree",
        {"ä/ß": (b"1", False), "z": (b"2", True), "é": (b"3", False)},
        ["z", "ä/ß", "é"],
        age=0,
    )
    code = "import sys; from pathlib import Path; from airflow_cd.packaging.archive import pack; "
    code += "pack(Path(sys.argv[1]), Path(sys.argv[2]), include=['ä', 'z', '**'])"
    # The last one takes file names for ASCII.
    environments = [
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"},
        {"PYTHONHASHSEED": "2", "TZ": "UTC", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ]
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    for number, extra in enumerate(environments):
        argv = [sys.executable, str(script), str(tmp_path / "tree"), str(tmp_path / f"{number}.tar.gz")]
        subprocess.run(argv, check=True, env={**os.environ, **extra})
    assert digest(tmp_path / "0.tar.gz") == digest(tmp_path / "1.tar.gz")


def test_the_bytes_say_nothing_of_this_machine(tmp_path: Path) -> None:
    write(tmp_path / "tree", {"run.sh": (b"x", True), "n" * 200: (b"y", False)}, ["run.sh", "n" * 200], age=5)
    (tmp_path / "tree/link").symlink_to("run.sh")
    (tmp_path / "tree/empty").mkdir(mode=0o700)
    pack(tmp_path / "tree", tmp_path / "x.tar.gz", include=["**"])
    header = (tmp_path / "x.tar.gz").read_bytes()[:10]
    assert header[3:8] == bytes(5)  # neither name nor other fields, and time 0
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        members = {member.name: member for member in archive}
    assert list(members) == ["empty", "link", "n" * 200, "run.sh"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {
        (0, 0, "", "", 315532800)
    }
    assert [m.mode for m in members.values()] == [0o755, 0o644, 0o644, 0o755]
    # What the bytes are must not change by accident: releases are known by them.
    plain = gzip.decompress((tmp_path / "x.tar.gz").read_bytes())
    assert (
        hashlib.sha256(plain).hexdigest()
        == "c5c417af873b5dbc27e1516ff082dab92e4571f5bc3c32d9887960d6cf437420"
    )


HOSTILE = [
    b"new\nline",
    b"-rf",
    b"--checkpoint-action=exec=sh",
    b"\xff\xfe",
    b" ",
    b"back\\slash",
    b"a\x1b[31m",
    b"*",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_survive(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "tree").mkdir()
    path = os.path.join(os.fsencode(tmp_path / "tree"), name)
    try:
        with open(path, "wb") as target:
            target.write(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    os.symlink(name, path + b"-link")
    pack(tmp_path / "tree", tmp_path / "x", include=["**"])
    unpack(tmp_path / "x", tmp_path / "out")
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted([name, name + b"-link"])
    assert os.readlink(os.path.join(os.fsencode(tmp_path / "out"), name + b"-link")) == name


def test_empty_folders_come_back(tmp_path: Path) -> None:
    (tmp_path / "tree/logs/old").mkdir(parents=True)
    assert pack(tmp_path / "tree", tmp_path / "x", include=["**"]) == ["logs/old"]
    unpack(tmp_path / "x", tmp_path / "out")
    assert (tmp_path / "out/logs/old").is_dir()


def test_links_to_folders_are_kept_as_links(tmp_path: Path) -> None:
    write(tmp_path / "tree", {"real/f": (b"x", False)}, ["real/f"], age=0)
    (tmp_path / "tree/alias").symlink_to("real")
    assert pack(tmp_path / "tree", tmp_path / "x", include=["**"]) == ["alias", "real/f"]
    unpack(tmp_path / "x", tmp_path / "out")
    assert os.readlink(tmp_path / "out/alias") == "real"


def test_sockets_and_pipes_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe")
    with pytest.raises(UnsafeArchiveError, match="'pipe' is neither a file nor a link; exclude it"):
        pack(tmp_path / "tree", tmp_path / "x", include=["**"])
    assert not (tmp_path / "x").exists()
    assert pack(tmp_path / "tree", tmp_path / "x", include=["**"], exclude=["pipe"]) == []
    (tmp_path / "tree/pipe").unlink()
    with socket.socket(socket.AF_UNIX) as opened:
        before = os.getcwd()
        os.chdir(tmp_path / "tree")  # the address of a socket may be 107 bytes long
        try:
            opened.bind("socket")
        finally:
            os.chdir(before)
        with pytest.raises(UnsafeArchiveError, match="'socket'"):
            pack(tmp_path / "tree", tmp_path / "x", include=["**"])


def test_what_cannot_be_packed_is_our_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        pack(tmp_path / "nowhere", tmp_path / "x", include=["**"])
    (tmp_path / "tree").mkdir()
    with pytest.raises(ArtifactError, match="cannot pack"):
        pack(tmp_path / "tree", tmp_path / "no folder" / "x", include=["**"])
    with pytest.raises(ArtifactError, match="would lie in the folder"):
        pack(tmp_path / "tree", tmp_path / "tree" / "x", include=["**"])


def test_a_full_disk_leaves_no_archive(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(os.urandom(1_000_000))
    with pytest.raises(ArtifactError, match="No space left"):
        pack(tmp_path / "tree", small_disk / "x", include=["**"])
    assert list(small_disk.iterdir()) == []
    pack(tmp_path / "tree", tmp_path / "x", include=["**"])
    with pytest.raises(ArtifactError, match="No space left"):
        unpack(tmp_path / "x", small_disk / "out")
    assert list(small_disk.iterdir()) == []
