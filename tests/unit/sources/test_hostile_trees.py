"""Commits nobody makes by accident: a clear refusal, or exactly their bytes; and nothing of them is run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository
from tests.support.small_disk import mounted

from airflow_cd.exceptions import SourceError, UnsafeTreeError
from airflow_cd.releases import adapters
from airflow_cd.sources.checkout import TreeLimits
from airflow_cd.sources.git import GitSource

COMMIT = "commit refs/heads/odd\ncommitter A <a@b> 1700000000 +0000\ndata 1\nm\n"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def push_files(repository: GitRepository, *names: str) -> str:
    """Push a commit with these files, each with the content ``x``."""
    files = "".join(f"M 100644 :1 {name}\n" for name in names)
    stream = f"blob\nmark :1\ndata 1\nx\n{COMMIT}{files}\n"
    repository.git("fast-import", "--quiet", "--force", stdin=stream.encode())
    repository.push("odd")
    return repository.git("rev-parse", "odd").strip()


def push_link(repository: GitRepository, target: bytes) -> str:
    blob = repository.git("hash-object", "-w", "--stdin", stdin=target).strip()
    repository.git("update-index", "--add", "--cacheinfo", f"120000,{blob},link")
    return repository.commit()


@pytest.mark.parametrize("folders", [300, 1500])
def test_folders_nested_without_end_are_refused(
    repository: GitRepository, cache: Path, into: Path, folders: int
) -> None:
    sha = push_files(repository, "a/" * folders + "f")
    with pytest.raises(UnsafeTreeError, match="more than 200 folders"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "says"),
    [(b"a\0b", "no link can have"), (b"", "no link can have"), (b"x" * 5_000_000, "4095 are the most")],
    ids=["nul", "empty", "huge"],
)
def test_a_link_no_system_can_make_is_refused(
    repository: GitRepository, cache: Path, into: Path, target: bytes, says: str
) -> None:
    sha = push_link(repository, target)
    with pytest.raises(UnsafeTreeError, match=says) as caught:
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert len(str(caught.value)) < 300
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("target", [b"new\nline", b"\xff\xfe", b"-rf", b"$(id)"])
def test_an_odd_link_is_as_it_was(repository: GitRepository, cache: Path, into: Path, target: bytes) -> None:
    sha = push_link(repository, target)
    GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert os.readlink(os.fsencode(into / "link")) == target


def test_links_in_a_circle_are_links(repository: GitRepository, cache: Path, into: Path) -> None:
    for name, target in {"one": "two", "two": "one", "self": "self"}.items():
        (repository.work / name).symlink_to(target)
    repository.git("add", "--all")
    sha = repository.commit()
    GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert sorted(path.name for path in into.iterdir() if path.is_symlink()) == ["one", "self", "two"]


def test_odd_names_are_as_they_were(repository: GitRepository, cache: Path, into: Path) -> None:
    names = [
        b"new\nline",
        b"-rf",
        b"--help",
        b"qu'o\"te",
        b"back\\slash",
        b"\xff\xfe",
        b" ",
        b"~",
        b"*",
        b"$(id)",
    ]
    names += [b"\xe2\x80\xaegnp.exe", b"\x1b[31m", b"a:b", b"..x", b".gitx", b"x" * 255]
    for name in names:
        (repository.work / os.fsdecode(name)).write_bytes(name)
    repository.git("add", "--all")
    sha = repository.commit()
    GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert sorted(os.listdir(os.fsencode(into))) == sorted(names)
    for name in names:
        assert (into / os.fsdecode(name)).read_bytes() == name


def test_ten_thousand_files(repository: GitRepository, cache: Path, into: Path) -> None:
    sha = push_files(repository, *(f"d{number % 100}/f{number}" for number in range(10_000)))
    GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    files = [path for path in into.rglob("*") if path.is_file()]
    assert len(files) == 10_000
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}


def test_nothing_of_a_repository_is_run(
    repository: GitRepository, cache: Path, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {ran}\ncat\n"
    config = f'[filter "evil"]\nsmudge = touch {ran}\nclean = touch {ran}\nrequired = true\n'
    config += (
        f'[core]\nhooksPath = .githooks\nfsmonitor = touch {ran}\n[diff "evil"]\ntextconv = touch {ran}\n'
    )
    files = {
        ".gitattributes": "* filter=evil diff=evil merge=evil\n",
        ".gitconfig": config,
        ".githooks/post-checkout": script,
        ".gitmodules": f'[submodule "x"]\npath = x\nurl = ext::touch {ran}\nupdate = !touch {ran}\n',
        "a": "1",
    }
    sha = repository.commit(files)
    for hook in ("pre-receive", "post-update", "reference-transaction", "post-checkout", "upload-pack"):
        (repository.bare / "hooks").mkdir(exist_ok=True)
        (repository.bare / "hooks" / hook).write_text(script)
        (repository.bare / "hooks" / hook).chmod(0o755)
    repository.bare.joinpath("config").open("a").write(
        config + f"[uploadpack]\npackObjectsHook = touch {ran};\n[gc]\nauto = 1\n"
    )
    (tmp_path / ".gitconfig").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    source = GitSource(repository.url, cache_dir=cache)
    source.revision(sha)
    source.checkout(sha, into)
    assert source.head("main") == sha
    assert (into / "a").read_text() == "1"
    assert (into / ".gitmodules").is_file()
    assert not ran.exists()


def test_a_repository_with_other_hashes_is_told_apart(
    repository: GitRepository, cache: Path, tmp_path: Path
) -> None:
    other = tmp_path / "sha256"
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    repository.git("init", "-q", "--object-format=sha256", "--initial-branch=main", str(other))
    repository.git("-C", str(other), *identity, "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(SourceError, match="SHA-256, which is not supported"):
        GitSource(str(other), cache_dir=cache).head("main")


def test_a_full_disk_is_said_and_costs_nothing_that_was_there(
    repository: GitRepository, tmp_path: Path
) -> None:
    first = repository.commit({"a": os.urandom(200_000)})
    with mounted(tmp_path / "small", "2m") as disk:
        source = GitSource(repository.url, cache_dir=disk.path / "git")
        disk.fill()
        with pytest.raises(SourceError, match=rf"make room on the disk of the mirror {disk.path}.*No space"):
            source.revision(first)
        disk.make_room()
        assert source.revision(first).sha == first

        second = repository.commit({"b": os.urandom(200_000)})
        disk.fill()
        with pytest.raises(SourceError, match="make room on the disk of the mirror"):
            source.revision(second)
        assert GitSource(repository.url, cache_dir=disk.path / "git").revision(first).sha == first
        into = disk.path / "tree"
        disk.fill(leave=4096)
        into.mkdir()
        with pytest.raises(SourceError, match=f"make room on the disk of {into}"):
            source.checkout(first, into)
        assert list(into.iterdir()) == []
        disk.make_room()
        assert source.revision(second).sha == second
        source.checkout(second, into)
        assert len(list(into.iterdir())) == 2
        assert not [name for name in disk.files() if "tmp_" in name], "pieces of the failed fetch are left"


def grown(repository: GitRepository, levels: int, size: int) -> str:
    """Push a commit whose tree has the same tree ten times, level by level, and one file at the bottom."""
    content = repository.git("hash-object", "-w", "--stdin", stdin=b"x" * size).strip()
    tree = repository.git("mktree", stdin=f"100644 blob {content}\tf\n".encode()).strip()
    for _ in range(levels):
        lines = "".join(f"040000 tree {tree}\td{number}\n" for number in range(10))
        tree = repository.git("mktree", stdin=lines.encode()).strip()
    sha = repository.git(
        "-c", "user.name=A", "-c", "user.email=a@b", "commit-tree", tree, "-m", "grown"
    ).strip()
    repository.git("update-ref", "refs/heads/grown", sha)
    repository.push("grown")
    return sha


@pytest.mark.parametrize(
    ("levels", "size", "says"),
    [
        (4, 1, r"more than 1000 files; .* or raise \[cd\] source_max_files"),
        (9, 1, r"more than 1000 files"),
        (2, 1 << 20, r"have 100 MiB, where 64 MiB are the most; .* raise \[cd\] source_max_bytes"),
    ],
    ids=["ten thousand files", "a billion files", "a hundred MiB"],
)
def test_a_few_objects_that_stand_for_very_many_files_are_refused(
    repository: GitRepository, cache: Path, into: Path, levels: int, size: int, says: str
) -> None:
    sha = grown(repository, levels, size)
    with pytest.raises(UnsafeTreeError, match=says):
        GitSource(repository.url, cache_dir=cache, limits=TreeLimits(1000, 64 << 20)).checkout(sha, into)
    assert list(into.iterdir()) == []


def test_the_limits_can_be_set(
    repository: GitRepository, into: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "data_dir", lambda: tmp_path / "cd")
    sha = repository.commit({"a": "12345", "b": "12345"})
    for name, value, says in (
        ("SOURCE_MAX_FILES", "1", "more than 1 files"),
        ("SOURCE_MAX_BYTES", "9", "0 MiB are the most"),
    ):
        monkeypatch.setenv(f"AIRFLOW__CD__{name}", value)
        with adapters.open_repository(repository.url, ".", None) as source:
            with pytest.raises(UnsafeTreeError, match=says):
                source.checkout(sha, into)
        monkeypatch.delenv(f"AIRFLOW__CD__{name}")
