"""Pages of commits, and addresses without credentials."""

from __future__ import annotations

import pytest

from airflow_cd.sources.web import commit_url, compare_url

OLD, NEW = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("repository", "page"),
    [
        ("https://github.com/org/hello.git", "https://github.com/org/hello/commit/"),
        ("https://github.com/org/hello", "https://github.com/org/hello/commit/"),
        ("https://user:token@github.com/org/hello.git/", "https://github.com/org/hello/commit/"),
        ("git@github.com:org/hello.git", "https://github.com/org/hello/commit/"),
        ("ssh://git@github.com:2222/org/hello.git", "https://github.com/org/hello/commit/"),
        (
            "git@gitlab.example.org:group/sub/hello.git",
            "https://gitlab.example.org/group/sub/hello/-/commit/",
        ),
        ("https://gitlab.com/org/hello.git", "https://gitlab.com/org/hello/-/commit/"),
        ("https://bitbucket.org/org/hello.git", "https://bitbucket.org/org/hello/commits/"),
        ("https://codeberg.org/org/hello.git", "https://codeberg.org/org/hello/commit/"),
        ("http://gitea.local:3000/org/hello.git", "http://gitea.local:3000/org/hello/commit/"),
        ("https://github.com/org/a)[x](b.git", "https://github.com/org/a%29%5Bx%5D%28b/commit/"),
    ],
)
def test_page_of_a_commit(repository: str, page: str) -> None:
    assert commit_url(repository, NEW) == page + NEW


@pytest.mark.parametrize(
    "repository",
    [
        "/srv/git/github/hello.git",
        "file:///srv/github.com/hello.git",
        "https://git.example.org/org/hello.git",
        "https://mygithub.example.org/org/hello.git",
        "https://bitbucket.example.org/scm/org/hello.git",
        "https://[broken/org/hello.git",
        "https://github.com:port/org/hello.git",
        "https://github.com/",
    ],
)
def test_unknown_hosts_have_no_page(repository: str) -> None:
    assert commit_url(repository, NEW) is None
    assert compare_url(repository, OLD, NEW) is None


@pytest.mark.parametrize(
    ("repository", "page"),
    [
        ("git@github.com:org/hello.git", f"https://github.com/org/hello/compare/{OLD}...{NEW}"),
        ("https://gitlab.com/org/hello", f"https://gitlab.com/org/hello/-/compare/{OLD}...{NEW}"),
        (
            "https://bitbucket.org/org/hello",
            f"https://bitbucket.org/org/hello/branches/compare/{NEW}%0D{OLD}",
        ),
    ],
)
def test_page_of_a_difference(repository: str, page: str) -> None:
    assert compare_url(repository, OLD, NEW) == page
