"""Logins in the URLs of repositories: git gets them, and nobody else on the machine sees them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer

from airflow_cd.exceptions import SourceError
from airflow_cd.sources.git import GitSource
from airflow_cd.sources.git_commands import git, ls_remote, redacted

PASSWORD = "s3cr:t/p@ss"
WRITTEN = "s3cr%3At%2Fp%40ss"


class Watching(list[str]):
    """Notes the command lines of all processes whenever the server is asked something."""

    seen = b""

    def append(self, path: str) -> None:
        super().append(path)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                self.seen += process.read_bytes() + b"\n"


async def test_a_login_is_in_no_command_line(
    repository: GitRepository, server: GitServer, cache: Path
) -> None:
    sha = repository.commit({"a": "1"})
    server.login, server.requests = f"alice:{PASSWORD}", Watching()
    url = server.url.replace("//", f"//alice:{WRITTEN}@") + "/origin.git"
    assert await ls_remote(url) == {"main": sha}
    source = GitSource(url, cache_dir=cache)
    assert source.revision(sha).sha == sha
    assert b"git" in server.requests.seen
    for secret in (PASSWORD, WRITTEN):
        assert secret.encode() not in server.requests.seen
    kept = [path.read_bytes() for path in cache.rglob("*") if path.is_file()]
    assert kept and not any(secret.encode() in content for secret in (PASSWORD, WRITTEN) for content in kept)


async def test_a_wrong_login_is_not_repeated(
    repository: GitRepository, server: GitServer, cache: Path
) -> None:
    sha = repository.commit({"a": "1"})
    server.login = "alice:other"
    url = server.url.replace("//", f"//alice:{WRITTEN}@") + "/origin.git?private_token=t0ken"
    with pytest.raises(SourceError) as told:
        GitSource(url, cache_dir=cache).revision(sha)
    assert not any(secret in str(told.value) for secret in ("s3cr", "t0ken"))
    with pytest.raises(SourceError) as told:
        await ls_remote(url)
    assert not any(secret in str(told.value) for secret in ("s3cr", "t0ken"))


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("unable to access 'https://u:pa/ss@h/x/': no", "unable to access 'https://h/x/': no"),
        ("at https://h:8443/a@b: no", "at https://h:8443/a@b: no"),
        ("at https://h/x?private_token=abc&ref=main", "at https://h/x?private_token=***&ref=main"),
        ("at https://h/x?ref=main&X-Amz-Signature=abc", "at https://h/x?ref=main&X-Amz-Signature=***"),
    ],
)
def test_what_git_says_is_redacted(text: str, public: str) -> None:
    assert redacted(text) == public


def test_output_is_bounded(repository: GitRepository) -> None:
    repository.commit({f"file-{number}": "x" for number in range(300)})
    with pytest.raises(SourceError, match="git ls-tree has more than 0 MiB to say"):
        git("ls-tree", "-r", "-z", "main", folder=repository.bare, longest=1000)
    assert len(git("ls-tree", "-r", "-z", "main", folder=repository.bare)) > 15_000
