"""The mirror is a cache: whatever happens to it, what the remote has can be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository, run
from tests.support.git_server import GitServer

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.sources.git import GitSource


def mirror_of(cache: Path) -> Path:
    (mirror,) = cache.glob("*.git")
    return mirror


def empty(mirror: Path) -> None:
    shutil.rmtree(mirror)
    mirror.mkdir()


def without_head(mirror: Path) -> None:
    (mirror / "HEAD").write_bytes(b"\0\0\0")


def without_objects(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()


def with_zeroed_objects(mirror: Path) -> None:
    for path in (mirror / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"\0" * path.stat().st_size)


def with_broken_refs(mirror: Path) -> None:
    for path in (mirror / "refs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (mirror / "packed-refs").write_bytes(b"\0")


def with_locks(mirror: Path) -> None:
    for name in ("packed-refs.lock", "refs/heads/main.lock", "config.lock"):
        (mirror / name).write_bytes(b"")


BREAKAGE = [empty, without_head, without_objects, with_zeroed_objects, with_broken_refs, with_locks]


@pytest.mark.parametrize("breaks", BREAKAGE)
def test_a_broken_mirror_is_made_anew(
    repository: GitRepository, cache: Path, tmp_path: Path, breaks: Callable[[Path], None]
) -> None:
    known = repository.commit({"a": "1"}, "known")
    GitSource(repository.url, cache_dir=cache).revision(known)
    breaks(mirror_of(cache))
    source = GitSource(repository.url, cache_dir=cache)
    assert source.revision(known).subject == "known"
    assert source.revision(repository.commit({"a": "2"}, "new")).subject == "new"
    (tmp_path / "tree").mkdir()
    source.checkout(known, tmp_path / "tree")
    assert (tmp_path / "tree" / "a").read_text() == "1"


@pytest.mark.parametrize("breaks", BREAKAGE)
def test_a_broken_mirror_does_not_hide_a_new_commit(
    repository: GitRepository, cache: Path, breaks: Callable[[Path], None]
) -> None:
    GitSource(repository.url, cache_dir=cache).revision(repository.commit({"a": "1"}))
    breaks(mirror_of(cache))
    new = repository.commit({"a": "2"}, "new")
    assert GitSource(repository.url, cache_dir=cache).revision(new).subject == "new"


def test_a_file_with_other_bytes_is_not_checked_out(
    repository: GitRepository, cache: Path, tmp_path: Path
) -> None:
    sha = repository.commit({"a": "right"})
    source = GitSource(repository.url, cache_dir=cache)
    source.revision(sha)
    blob = repository.git("rev-parse", f"{sha}:a").strip()
    path = mirror_of(cache) / "objects" / blob[:2] / blob[2:]
    other = run("-C", str(repository.work), "hash-object", "-w", "--stdin", stdin=b"wrong").strip()
    path.chmod(0o644)
    shutil.copy(repository.work / ".git" / "objects" / other[:2] / other[2:], path)
    (tmp_path / "tree").mkdir()
    source.checkout(sha, tmp_path / "tree")
    assert (tmp_path / "tree" / "a").read_text() == "right"


def test_what_a_killed_fetch_left_does_not_count(repository: GitRepository, cache: Path) -> None:
    first = repository.commit({"a": "1"})
    source = GitSource(repository.url, cache_dir=cache)
    source.revision(first)
    second = repository.commit({"a": "2"}, "second")
    # The commit has arrived, its files have not, and no ref leads to it.
    raw = repository.git("cat-file", "commit", second).encode()
    run("-C", str(mirror_of(cache)), "hash-object", "-t", "commit", "-w", "--stdin", stdin=raw)
    before = mirror_of(cache).stat().st_ino
    assert source.revision(second).subject == "second"
    assert source.find_tree(second)
    run("-C", str(mirror_of(cache)), "rev-list", "--objects", second)
    assert mirror_of(cache).stat().st_ino == before, "the mirror was thrown away"


def test_a_branch_may_become_a_folder_of_branches(repository: GitRepository, cache: Path) -> None:
    source = GitSource(repository.url, cache_dir=cache)
    source.revision(repository.commit(branch="topic"))
    repository.git("push", "-q", "origin", ":topic")
    nested = repository.commit(message="nested", branch="topic2")
    repository.push("topic2:refs/heads/topic/deeper")
    assert source.revision(nested).subject == "nested"


def test_many_processes_may_start_at_once(repository: GitRepository, cache: Path) -> None:
    shas = [repository.commit({"a": str(number)}, str(number)) for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        read = [
            threads.submit(GitSource(repository.url, cache_dir=cache).revision, shas[number % 4])
            for number in range(8)
        ]
        assert [future.result().subject for future in read] == ["0", "1", "2", "3"] * 2
    assert sorted(path.suffix for path in cache.iterdir()) == [".git", ".lock"]


def test_a_remote_that_stumbles_is_asked_again(
    repository: GitRepository, server: GitServer, cache: Path
) -> None:
    sha = repository.commit()
    server.failures = 2
    assert GitSource(f"{server.url}/origin.git", cache_dir=cache).head("main") == sha
    assert server.listings == 3


def test_a_dead_remote_ends_with_its_reason_and_without_the_password(
    repository: GitRepository, server: GitServer, cache: Path
) -> None:
    sha = repository.commit()
    server.down = True
    url = server.url.replace("http://", "http://ada:s3cret@")
    with pytest.raises(SourceError, match="503") as caught:
        GitSource(f"{url}/origin.git", cache_dir=cache).revision(sha)
    assert 2 <= server.listings <= 10
    assert not isinstance(caught.value, RevisionNotFoundError)
    assert server.url.removeprefix("http://") in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_refusal_is_not_tried_again(repository: GitRepository, server: GitServer, cache: Path) -> None:
    repository.commit()
    server.login = "ada:right"
    with pytest.raises(SourceError, match="could not read Username"):
        GitSource(f"{server.url}/origin.git", cache_dir=cache).head("main")
    assert server.listings == 1


def test_a_missing_repository_is_told_apart(server: GitServer, cache: Path) -> None:
    with pytest.raises(SourceError, match="not found"):
        GitSource(f"{server.url}/nosuch.git", cache_dir=cache).head("main")
    assert server.listings == 1


def test_a_commit_is_fetched_over_http_by_its_sha(
    repository: GitRepository, server: GitServer, cache: Path
) -> None:
    base = repository.commit()
    lost = repository.commit({"a": "1"}, "lost")
    repository.git("reset", "-q", "--hard", base)
    repository.push("main")
    source = GitSource(f"{server.url}/origin.git", cache_dir=cache)
    assert source.revision(lost).subject == "lost"
    with pytest.raises(RevisionNotFoundError, match="has no commit"):
        source.revision("1" * 40)
