"""A checkout is that commit's files, byte for byte, and nothing that reaches outside of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository

from airflow_cd.exceptions import SourceError
from airflow_cd.sources.git import GitSource


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def link(repository: GitRepository, name: str, target: str) -> None:
    """Stage a link without making it."""
    blob = repository.git("hash-object", "-w", "--stdin", stdin=target.encode()).strip()
    repository.git("update-index", "--add", "--cacheinfo", f"120000,{blob},{name}")


def push_tree(repository: GitRepository, *entries: tuple[str, str, str]) -> str:
    """Push a commit whose tree has these entries (mode, name, hash), which git itself would not write."""
    raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, name, sha in entries)
    tree = repository.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw).strip()
    commit = f"tree {tree}\nauthor A <a> 0 +0000\ncommitter A <a> 0 +0000\n\nx\n"
    return repository.commit_raw(commit.encode(), "odd")


def test_exactly_that_commit(repository: GitRepository, cache: Path, into: Path) -> None:
    repository.commit({"gone": "1", "kept/deep/file": "old"})
    wanted = repository.commit({"gone": None, "kept/deep/file": "wanted"})
    repository.commit({"kept/deep/file": "newer", "later": "1"})
    GitSource(repository.url, cache_dir=cache).checkout(wanted, into)
    assert names(into) == ["kept", "kept/deep", "kept/deep/file"]
    assert (into / "kept/deep/file").read_text() == "wanted"


def test_only_the_path(repository: GitRepository, cache: Path, into: Path) -> None:
    sha = repository.commit({"svc/app.py": "mine", "other/app.py": "not mine"})
    GitSource(repository.url, path="svc", cache_dir=cache).checkout(sha, into)
    assert names(into) == ["app.py"]


def test_modes_links_and_times_are_the_same_everywhere(
    repository: GitRepository, cache: Path, into: Path
) -> None:
    (repository.work / "bin").mkdir()
    (repository.work / "bin/run").write_text("#!/bin/sh\n")
    (repository.work / "bin/run").chmod(0o755)
    (repository.work / "lib").symlink_to("bin")
    (repository.work / "start").symlink_to("lib/run")
    (repository.work / "dangling").symlink_to("bin/nosuch")
    repository.git("add", "--all")
    sha = repository.commit({"data": "x"})
    before = os.umask(0o077)
    try:
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((into / name).stat().st_mode) for name in ("bin", "bin/run", "data")}
    assert modes == {"bin": 0o755, "bin/run": 0o755, "data": 0o644}
    assert os.readlink(into / "start") == "lib/run"
    assert (into / "start").read_text() == "#!/bin/sh\n"
    assert os.readlink(into / "dangling") == "bin/nosuch"
    assert {path.lstat().st_mtime for path in [into, *into.rglob("*")]} == {315532800}


def test_attributes_change_no_bytes(repository: GitRepository, cache: Path, into: Path) -> None:
    content: dict[str | bytes, str | bytes] = {
        ".gitattributes": "* text eol=crlf ident export-subst filter=lfs\nhidden export-ignore\n",
        "text": "one\ntwo $Id$ $Format:%H$\n",
        "hidden": "kept",
        "binary": bytes(range(256)) * 9000,
        "empty": b"",
        "na\nme \xff".encode(): b"odd",
    }
    sha = repository.commit({os.fsdecode(name): text for name, text in content.items()})
    GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    for name, text in content.items():
        path = into / os.fsdecode(name)
        assert path.read_bytes() == repository_bytes(repository, sha, os.fsdecode(name))
        if name in ("hidden", "binary", "empty"):
            assert path.read_bytes() == (text.encode() if isinstance(text, str) else text)
    assert b"$Format:%H$" in (into / "text").read_bytes()
    assert b"\r" not in (into / "text").read_bytes()


def test_a_submodule_is_refused(repository: GitRepository, cache: Path, into: Path) -> None:
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendor/lib")
    sha = repository.commit({"a": "1"})
    with pytest.raises(SourceError, match="'vendor/lib' is a submodule.*vendor its files"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert names(into) == []


@pytest.mark.parametrize(
    "links",
    [
        {"evil": "/etc/passwd"},
        {"evil": "../outside"},
        {"sub/evil": "../../outside"},
        {"x/y/up": "../..", "evil": "x/y/up/../outside"},
        {"evil": ".."},
    ],
    ids=["absolute", "above", "deep", "through-another", "parent"],
)
def test_a_link_out_of_the_tree_is_refused(
    repository: GitRepository, cache: Path, into: Path, links: dict[str, str]
) -> None:
    for name, target in links.items():
        link(repository, name, target)
    sha = repository.commit()
    with pytest.raises(SourceError, match="link '[a-z/]*evil' points outside the source"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert names(into) == []


def test_an_absolute_link_is_refused_wherever_it_points(
    repository: GitRepository, cache: Path, into: Path
) -> None:
    link(repository, "here", str(into / "a"))
    sha = repository.commit({"a": "1"})
    with pytest.raises(SourceError, match="'here' points outside the source"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)


def test_a_link_out_of_the_service_is_refused(repository: GitRepository, cache: Path, into: Path) -> None:
    link(repository, "svc/shared", "../shared")
    sha = repository.commit({"shared/a": "1"})
    with pytest.raises(SourceError, match=r"'shared' points outside the source, to '\.\./shared'"):
        GitSource(repository.url, path="svc", cache_dir=cache).checkout(sha, into)


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "."])
def test_a_name_no_tool_would_write_is_refused(
    repository: GitRepository, cache: Path, into: Path, name: str
) -> None:
    repository.commit({"a": "escaped"})
    folder = repository.git("rev-parse", "HEAD^{tree}").strip()
    sha = push_tree(repository, ("40000", name, folder))
    with pytest.raises(SourceError, match="reach outside"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert names(into.parent / "tree") == []
    assert not (into.parent / "a").exists()


def test_no_file_is_written_through_a_link(repository: GitRepository, cache: Path, into: Path) -> None:
    repository.commit({"a": "escaped"})
    folder = repository.git("rev-parse", "HEAD^{tree}").strip()
    outside = repository.git("hash-object", "-w", "--stdin", stdin=str(into.parent).encode()).strip()
    sha = push_tree(repository, ("120000", "d", outside), ("40000", "d", folder))
    with pytest.raises(SourceError):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert not (into.parent / "a").exists()
    assert names(into) == []


def test_the_folder_must_be_empty(repository: GitRepository, cache: Path, into: Path) -> None:
    sha = repository.commit({"a": "1"})
    (into / "precious").touch()
    with pytest.raises(SourceError, match="is not empty"):
        GitSource(repository.url, cache_dir=cache).checkout(sha, into)
    assert names(into) == ["precious"]


def repository_bytes(repository: GitRepository, sha: str, name: str) -> bytes:
    return repository.git("cat-file", "blob", f"{sha}:{name}").encode("utf-8", "surrogateescape")
