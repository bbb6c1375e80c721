"""An event is delivered at least once: what was seen is stored after its event, and read at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer
from tests.support.watching import Store, eventually, polls, trigger_of, watching

from airflow_cd.triggers.git_heads import GitHeadTrigger


async def test_a_restart_knows_which_head_was_seen(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    url, store = f"{server.url}/origin.git", Store()
    seen = repository.commit()
    async with watching(trigger_of(url, tmp_path, store)) as watch:
        await watch.next()
        await store.holds(seen)
    async with watching(trigger_of(url, tmp_path, store)) as watch:
        await polls(server, 3)
        assert watch.is_quiet
    missed = repository.commit(message="while it was down")
    async with watching(trigger_of(url, tmp_path, store)) as watch:
        payload = await watch.next()
    assert (payload["previous"], payload["revision"], payload["total"]) == (seen, missed, 1)


async def test_an_event_that_was_not_handed_over_comes_again(
    repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GitHeadTrigger, "handover_seconds", 600.0)
    store = Store()
    sha = repository.commit()
    for _ in range(2):
        async with watching(trigger_of(repository.url, tmp_path, store)) as watch:
            assert (await watch.next())["revision"] == sha
    assert store.values == {}


async def test_the_cursor_belongs_to_repository_branch_and_path(
    repository: GitRepository, tmp_path: Path
) -> None:
    store = Store()
    repository.commit({"svc/a": "1"})
    sha = repository.commit({"svc/a": "2"}, branch="topic")
    repository.push("topic:main")
    for number, options in enumerate(({}, {"branch": "topic"}, {"path": "svc"}), 1):
        async with watching(trigger_of(repository.url, tmp_path, store, **options)) as watch:
            assert (await watch.next())["revision"] == sha
            await eventually(lambda wanted=number: len(store.values) == wanted)  # type: ignore[misc]


async def test_a_store_that_does_not_answer_is_asked_again(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    store = Store()
    store.broken = True
    sha = repository.commit()
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path, store)) as watch:
        await polls(server, 3)
        assert watch.is_quiet
        store.broken = False
        assert (await watch.next())["revision"] == sha
