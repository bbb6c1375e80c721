"""When `build` uses what it kept of an earlier build, and when it builds again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.support.local_run import LocalRun, local_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    with local_run(tmp_path, monkeypatch) as one:
        yield one


def blob(run: LocalRun, digest: str) -> Path:
    (found,) = Path(urlsplit(run.store.url).path).rglob(f"*{digest.removeprefix('sha256:')[8:]}*")
    return found


@pytest.mark.parametrize("damage", ["changed", "cut short", "gone"])
def test_a_kept_workspace_that_is_damaged_is_built_again(run: LocalRun, damage: str) -> None:
    service, sha = run.service(), run.commit("one")
    first = run.build(service, sha)
    file = blob(run, first["workspace"])
    content = file.read_bytes()
    file.chmod(0o600)
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut short" else bytes([content[0] ^ 1]) + content[1:])

    again = run.build(service, sha)
    assert again["reused"] is False
    assert run.store.get_bytes(again["workspace"])
    assert run.build(service, sha)["reused"] is True
