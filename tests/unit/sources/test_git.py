"""What a repository tells of its commits, on real repositories."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.git_repository import GitRepository, run

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.sources.git import GitSource

NOBODY = "0" * 39 + "1"


@pytest.fixture
def source(repository: GitRepository, cache: Path) -> GitSource:
    return GitSource(repository.url, cache_dir=cache)


def subjects(source: GitSource, since: str | None, until: str, limit: int = 100) -> list[str]:
    return [commit.subject for commit in source.changelog(since, until, limit)]


def test_head_is_where_the_branch_points_now(repository: GitRepository, source: GitSource) -> None:
    first = repository.commit(message="one")
    assert source.head("main") == first
    second = repository.commit(message="two")
    assert source.head("main") == second


def test_head_of_an_unknown_branch_names_it(repository: GitRepository, source: GitSource) -> None:
    repository.commit()
    with pytest.raises(SourceError, match=r"no branch 'nosuch'.*correct `branch:`"):
        source.head("nosuch")


def test_revision_says_what_the_commit_says(repository: GitRepository, source: GitSource) -> None:
    sha = repository.commit({"a": "1"}, "Say hello\n\nand more", author="Ada L", email="ada@example.org")
    revision = source.revision(sha)
    assert (revision.sha, revision.subject) == (sha, "Say hello")
    assert (revision.author_name, revision.author_email) == ("Ada L", "ada@example.org")
    assert revision.committed_at.isoformat() == "2023-11-14T22:14:20+00:00"
    assert revision.tree == repository.git("rev-parse", f"{sha}^{{tree}}").strip()
    assert revision.url is None


@pytest.mark.parametrize(
    "sha", ["main", "abc1234", "A" * 40, "a" * 41, "--all", "$(id)", "", "a" * 39 + "\n"]
)
def test_only_full_shas_are_taken(repository: GitRepository, source: GitSource, sha: str) -> None:
    repository.commit()
    with pytest.raises(RevisionNotFoundError, match="not a full commit SHA"):
        source.revision(sha)


def test_an_unknown_commit_says_what_may_have_happened(repository: GitRepository, source: GitSource) -> None:
    repository.commit()
    with pytest.raises(RevisionNotFoundError, match=f"has no commit {NOBODY}.*force-pushed.*release the"):
        source.revision(NOBODY)


def test_a_tag_object_is_not_a_commit(repository: GitRepository, source: GitSource) -> None:
    repository.commit()
    repository.git("-c", "user.name=a", "-c", "user.email=a@b", "tag", "-a", "-m", "x", "v1.0.0")
    repository.push("v1.0.0")
    tag = repository.git("rev-parse", "v1.0.0").strip()
    with pytest.raises(RevisionNotFoundError, match="not a commit"):
        source.revision(tag)


def test_path_must_exist(repository: GitRepository, cache: Path) -> None:
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    sha = repository.commit({"svc/app.py": "1", "file": "1"})
    assert GitSource(repository.url, path="./svc/", cache_dir=cache).tree(sha) == (
        repository.git("rev-parse", f"{sha}:svc").strip()
    )
    for path in ("nosuch", "file", "module", "s*"):
        with pytest.raises(SourceError, match="does not exist at commit.*correct `path:`"):
            GitSource(repository.url, path=path, cache_dir=cache).tree(sha)


def test_hostile_commits_are_data(repository: GitRepository, source: GitSource) -> None:
    subject = "\x1b[31m$(touch /tmp/x) `id` \u202eevil; rm -rf / %H\x07 " + "x" * 300
    author = "$(id)\x1b[2J\u2028Mallory"
    sha = repository.commit(message=subject, author=author, email="m\x1b[1m@example.org")
    revision = source.revision(sha)
    assert len(revision.subject) == 200
    assert revision.subject.startswith("\ufffd[31m$(touch /tmp/x) `id` \ufffdevil; rm -rf / %H\ufffd xxx")
    assert revision.subject.endswith("x…")
    assert revision.author_name == "$(id)\ufffd[2J\ufffdMallory"
    assert revision.author_email == "m\ufffd[1m@example.org"


def test_a_message_cannot_forge_another_commit(repository: GitRepository, source: GitSource) -> None:
    first = repository.commit(message="honest")
    forged = b"first line\r\n\n" + b"a" * 40 + b"\nMallory\nm@example.org\n0\nforged"
    second = repository.commit(message=forged)
    assert [commit.sha for commit in source.changelog(None, second)] == [second, first]


def test_bytes_that_are_not_utf8_are_replaced(repository: GitRepository, source: GitSource) -> None:
    tree = repository.git("rev-parse", f"{repository.commit()}^{{tree}}").strip().encode()
    sha = repository.commit_raw(_raw_commit(tree, b"1700000000", b"caf\xe9 \xc3\xa9"), "odd")
    assert source.revision(sha).subject == "caf\ufffd é"


@pytest.mark.parametrize("seconds", [b"99999999999999999", b"99999999999999999999999", b"-1", b"soon"])
def test_a_commit_may_state_an_absurd_time(
    repository: GitRepository, source: GitSource, seconds: bytes
) -> None:
    tree = repository.git("rev-parse", f"{repository.commit()}^{{tree}}").strip().encode()
    sha = repository.commit_raw(_raw_commit(tree, seconds, b"x"), "odd")
    assert source.revision(sha).committed_at.year in (1969, 1970)


def test_versions_come_from_tags(repository: GitRepository, source: GitSource, cache: Path) -> None:
    first = repository.commit()
    assert source.revision(first).version == f"0.0.0.dev1+g{first[:8]}"
    tagged = repository.commit()
    repository.git("tag", "v1.2.3")
    repository.git("tag", "nonsense")
    repository.push("v1.2.3", "nonsense")
    later = repository.commit()
    fresh = GitSource(repository.url, cache_dir=cache / "other")
    assert fresh.revision(tagged).version == "1.2.3"
    assert fresh.revision(later).version == f"1.2.3.dev1+g{later[:8]}"
    assert fresh.revision(first).version == f"0.0.0.dev1+g{first[:8]}"


def test_changelog_stops_at_since(repository: GitRepository, source: GitSource) -> None:
    shas = [repository.commit(message=str(number)) for number in range(5)]
    assert subjects(source, shas[1], shas[4]) == ["4", "3", "2"]
    assert subjects(source, None, shas[4]) == ["4", "3", "2", "1", "0"]
    assert subjects(source, None, shas[4], limit=2) == ["4", "3"]
    assert subjects(source, shas[4], shas[4]) == []
    assert source.count(shas[1], shas[4]) == 3
    assert source.count(None, shas[4]) == 5


def test_changelog_keeps_to_the_path(repository: GitRepository, cache: Path) -> None:
    start = repository.commit({"svc/a": "1"}, "start")
    repository.commit({"other/a": "1"}, "other")
    last = repository.commit({"svc/a": "2"}, "mine")
    source = GitSource(repository.url, path="svc", cache_dir=cache)
    assert subjects(source, start, last) == ["mine"]
    assert subjects(source, None, last) == ["mine", "start"]
    assert source.count(None, last) == 2


def test_a_path_is_not_a_pattern(repository: GitRepository, cache: Path) -> None:
    repository.commit({"svc-a/x": "1"}, "other")
    last = repository.commit({"svc-*/x": "1"}, "mine")
    assert subjects(GitSource(repository.url, path="svc-*", cache_dir=cache), None, last) == ["mine"]


def test_changelog_after_rewritten_history(repository: GitRepository, source: GitSource) -> None:
    base = repository.commit(message="base")
    old = repository.commit(message="old")
    source.revision(old)
    repository.git("reset", "-q", "--hard", base)
    new = repository.commit(message="new")
    repository.forget(old)
    assert subjects(source, old, new) == ["new"]
    assert source.is_ancestor(old, new) is False


def test_changelog_since_a_commit_that_is_gone(repository: GitRepository, source: GitSource) -> None:
    for number in range(25):
        last = repository.commit(message=str(number))
    assert subjects(source, NOBODY, last) == [str(number) for number in range(24, 4, -1)]


def test_ancestry_is_strict(repository: GitRepository, source: GitSource) -> None:
    old, new = repository.commit(), repository.commit()
    assert source.is_ancestor(old, new)
    assert not source.is_ancestor(new, old)
    assert not source.is_ancestor(new, new)
    with pytest.raises(RevisionNotFoundError):
        source.is_ancestor(NOBODY, new)


def test_a_commit_on_no_branch_is_fetched_by_its_sha(repository: GitRepository, source: GitSource) -> None:
    base = repository.commit()
    lost = repository.commit({"a": "1"}, "lost")
    repository.git("reset", "-q", "--hard", base)
    repository.push("main")
    assert source.revision(lost).subject == "lost"


def test_a_commit_that_was_taken_needs_no_network(repository: GitRepository, source: GitSource) -> None:
    first = repository.commit({"a": "1"})
    second = repository.commit({"a": "2"})
    source.revision(second)
    shutil.rmtree(repository.bare)
    assert source.revision(first).sha == first
    assert source.is_ancestor(first, second)


def test_what_was_taken_survives_force_push_and_clean_up(
    repository: GitRepository, source: GitSource, cache: Path, tmp_path: Path
) -> None:
    base = repository.commit({"a": "base"})
    taken = repository.commit({"a": "taken"})
    source.revision(taken)
    repository.git("reset", "-q", "--hard", base)
    source.revision(repository.commit({"a": "instead"}))
    repository.forget(taken)
    (mirror,) = cache.glob("*.git")
    run("-C", str(mirror), "-c", "safe.directory=*", "gc", "-q", "--prune=now")
    (tmp_path / "tree").mkdir()
    source.checkout(taken, tmp_path / "tree")
    assert (tmp_path / "tree" / "a").read_text() == "taken"


def test_mirrors_do_not_mix(repository: GitRepository, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = GitRepository(tmp_path / "second")
    sha = other.commit(message="other")
    repository.commit(message="first")
    assert GitSource(other.url, cache_dir=cache).revision(sha).subject == "other"
    with pytest.raises(RevisionNotFoundError):
        GitSource(repository.url, cache_dir=cache).revision(sha)


def test_configuration_and_hooks_of_the_machine_have_no_effect(
    repository: GitRepository, source: GitSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = repository.commit(message="plain")
    (tmp_path / ".gitconfig").write_text(
        '[log]\nshowSignature = true\n[url "/nonexistent/"]\ninsteadOf = /\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "i18n.logOutputEncoding")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "utf-16")
    assert source.revision(sha).subject == "plain"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_repository_of_another_user_is_read(repository: GitRepository, source: GitSource) -> None:
    sha = repository.commit()
    for path in [repository.bare, *repository.bare.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert source.head("main") == sha
    assert source.revision(sha).sha == sha


@pytest.mark.parametrize("repository_name", ["--upload-pack=touch x", "-x"])
def test_a_repository_is_never_an_option(cache: Path, repository_name: str) -> None:
    with pytest.raises(SourceError, match="starts with a dash"):
        GitSource(repository_name, cache_dir=cache)


def test_a_url_cannot_name_a_command(cache: Path, tmp_path: Path) -> None:
    source = GitSource(f"ext::touch {tmp_path}/ran", cache_dir=cache)
    with pytest.raises(SourceError, match="not allowed"):
        source.head("main")
    assert not (tmp_path / "ran").exists()


def _raw_commit(tree: bytes, seconds: bytes, message: bytes) -> bytes:
    lines = [
        b"tree " + tree,
        *(who + b" A <a@b> " + seconds + b" +0000" for who in (b"author", b"committer")),
    ]
    return b"\n".join([*lines, b"", message + b"\n"])


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(parents=st.lists(st.sets(st.integers(0, 6), min_size=1, max_size=2), min_size=2, max_size=6))
def test_ancestors_of_many_are_those_of_each(parents: list[set[int]]) -> None:
    """Whatever the history looks like, with merges and several beginnings."""
    with tempfile.TemporaryDirectory() as folder:
        repository = GitRepository(Path(folder))
        tree = repository.git("mktree").strip()
        shas: list[str] = []
        for number, chosen in enumerate(parents):
            of = [option for one in sorted(chosen) if one < number for option in ("-p", shas[one])]
            shas.append(commit_of(repository, tree, number, of))
            repository.push(f"{shas[-1]}:refs/heads/b{number}")
        source = GitSource(repository.url, cache_dir=Path(folder) / "cache")
        source.revision(shas[-1])
        for newer in shas:
            expected = {older for older in shas if source.is_ancestor(older, newer)}
            assert source.ancestors(newer, among={*shas, NOBODY}) == expected


def commit_of(repository: GitRepository, tree: str, number: int, parents: list[str]) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    return repository.git(*who, "commit-tree", tree, "-m", f"change {number}", *parents).strip()


def test_a_commit_of_a_pull_request_is_not_on_the_branch(repository: GitRepository, cache: Path) -> None:
    """Git hosts keep them under names of their own, and hand them out by SHA."""
    old, head = repository.commit({"a": "1"}), repository.commit({"a": "2"})
    stranger = repository.commit({"a": "evil"}, branch="fork")
    repository.git("push", "--quiet", str(repository.bare), f"{stranger}:refs/pull/1/head")
    source = GitSource(repository.url, cache_dir=cache)
    assert source.revision(stranger).sha == stranger
    assert [source.is_on_branch(sha, "main") for sha in (old, head, stranger)] == [True, True, False]
