"""Commits in odd encodings: whatever bytes they hold, the fields are the commit's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository

from airflow_cd.sources.git import GitSource


@pytest.mark.parametrize(
    ("encoding", "message", "subject"),
    [
        ("latin1", b"caf\xe9", "café"),
        ("nonsense", b"caf\xe9", "caf\ufffd"),
        ("Windows-1251", "привет".encode("cp1251"), "привет"),
        ("Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("UTF-7", b"+AAo-x +AAA-y", "+AAo-x +AAA-y"),
        ("utf-8", b"one\0" + b"a" * 40 + b"\0Mallory\0m@example.org\0001\0forged\0", "one"),
        pytest.param("utf-8", b"x" * 100_000, "x" * 199 + "…", id="100kB"),
        ("utf-8", "\u2066\ufeff\u061c\U000e0041".encode(), "\ufffd\ufffd\ufffd\ufffd"),
    ],
)
def test_encodings(
    repository: GitRepository, cache: Path, encoding: str, message: bytes, subject: str
) -> None:
    tree = repository.git("rev-parse", f"{repository.commit()}^{{tree}}").strip()
    header = f"tree {tree}\nauthor Ada <ada@example.org> 1700000000 +0000\n"
    header += f"committer Ada <ada@example.org> 1700000000 +0000\nencoding {encoding}\n\n"
    sha = repository.commit_raw(header.encode() + message + b"\n", "odd")
    source = GitSource(repository.url, cache_dir=cache)
    (commit,) = source.changelog(None, sha)
    assert (commit.sha, commit.subject) == (sha, subject)
    assert (commit.author_name, commit.author_email) == ("Ada", "ada@example.org")
    assert source.revision(sha).subject == subject


def test_a_commit_that_lies_about_its_encoding_has_no_author(repository: GitRepository, cache: Path) -> None:
    """The approval policy knows what to make of that."""
    tree = repository.git("rev-parse", f"{repository.commit()}^{{tree}}").strip()
    who = "Bob <bob@example.org> 1700000000 +0000"
    raw = f"tree {tree}\nauthor {who}\ncommitter {who}\nencoding UTF-16\n\nplain\n"
    sha = repository.commit_raw(raw.encode(), "odd")
    revision = GitSource(repository.url, cache_dir=cache).revision(sha)
    assert (revision.sha, revision.author_email, revision.subject) == (sha, "", "")
