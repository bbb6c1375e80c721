"""Pages of commits, and addresses without credentials."""

from __future__ import annotations

import pytest

from airflow_cd.sources.web import commit_url, compare_url, host_of, public_url, without_login

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


@pytest.mark.parametrize(
    ("repository", "public"),
    [
        ("https://user:s3cret@host/org/hello.git", "https://host/org/hello.git"),
        ("https://s3cret@host:8443/hello.git", "https://host:8443/hello.git"),
        ("https://user:p@ss@host/hello.git", "https://host/hello.git"),
        ("ssh://git:s3cret@host/hello.git", "ssh://git@host/hello.git"),
        ("ssh://git@host/hello.git", "ssh://git@host/hello.git"),
        ("https://[broken@host/hello.git", "https://host/hello.git"),
        ("git@host:hello.git", "git@host:hello.git"),
        ("/srv/hello.git", "/srv/hello.git"),
    ],
)
def test_public_address(repository: str, public: str) -> None:
    assert public_url(repository) == public


@pytest.mark.parametrize(
    "repository",
    [
        "https://u:pa/ss@h.example/org/hello.git",
        "https://u:pa@ss@h.example/org/hello.git",
        "https://t0ken@h.example/org/hello.git",
        "https://h.example/org/hello.git?private_token=t0ken",
        "https://h.example/org/hello.git#t0ken",
    ],
)
def test_no_way_of_writing_a_secret_is_public(repository: str) -> None:
    assert public_url(repository) == "https://h.example/org/hello.git"


@pytest.mark.parametrize(
    "repository",
    [
        "https://h.example:8443/org/a@b.git",
        "http://[::1]:3000/org/a@b.git",
        "file:///srv/a@b?c#d",
        "/srv/a@b",
    ],
)
def test_what_looks_like_a_secret_and_is_none_stays(repository: str) -> None:
    assert public_url(repository) == repository


@pytest.mark.parametrize(
    ("repository", "parts"),
    [
        ("https://u:p%40ss@h.example/x", ("https://h.example/x", "u", "p@ss")),
        ("https://t0ken@h.example/x", ("https://h.example/x", "t0ken", "")),
        ("https://h.example:8443/x", ("https://h.example:8443/x", "", "")),
        ("ssh://git@h.example/x", ("ssh://git@h.example/x", "", "")),
        ("git@h.example:x", ("git@h.example:x", "", "")),
    ],
)
def test_the_login_of_a_url(repository: str, parts: tuple[str, str, str]) -> None:
    assert without_login(repository) == parts


@pytest.mark.parametrize(
    ("repository", "host"),
    [
        ("https://u:p@H.example:8443/x", "h.example:8443"),
        ("git@h.example:x", "h.example"),
        ("ssh://git@h.example:22/x", "h.example:22"),
        ("/srv/x", ""),
        ("file:///srv/x", ""),
    ],
)
def test_the_host_that_answers(repository: str, host: str) -> None:
    assert host_of(repository) == host
