"""Addresses of repositories."""

from __future__ import annotations

import pytest

from airflow_cd.model.repository_url import host_of, public_url, without_login
from airflow_cd.model.service import SourceSettings


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
    assert SourceSettings(repository=repository).public_repository == public


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
