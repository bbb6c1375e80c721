"""Pushes become events: one each, also over restarts, dead remotes and rewritten history."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from airflow.triggers.shared_stream import SharedStreamManager
from filelock import FileLock
from tests.support.git_repository import GitRepository
from tests.support.git_server import GitServer
from tests.support.watching import Store, Watch, eventually, polls, trigger_of, watching

from airflow_cd.sources.git import GitSource
from airflow_cd.sources.mirror import Mirror
from airflow_cd.triggers.git_heads import GitHeadTrigger


async def test_the_first_sight_of_a_branch_fires(repository: GitRepository, tmp_path: Path) -> None:
    repository.commit(message="before")
    sha = repository.commit(message="now", author="Ada")
    async with watching(trigger_of(repository.url, tmp_path)) as watch:
        assert await watch.next() == {
            "service": "hello",
            "repository": repository.url,
            "branch": "main",
            "revision": sha,
            "previous": None,
            "commits": [{"sha": sha, "subject": "now", "author_name": "Ada", "url": None}],
            "total": 1,
        }


async def test_a_push_is_one_event_with_its_commits(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    first = repository.commit()
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path)) as watch:
        await watch.next()
        for number in range(25):
            last = repository.commit(message=str(number), push=number == 24)
        payload = await watch.next()
        assert (payload["previous"], payload["revision"]) == (first, last)
        assert payload["total"] == 25
        assert [commit["subject"] for commit in payload["commits"]] == [str(n) for n in range(24, 4, -1)]
        await polls(server, 3)
        assert watch.is_quiet


async def test_hostile_names_and_messages_are_data(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    branch = "x;$(touch${IFS}ran)\u2028y"
    repository.commit(branch="main")
    sha = repository.commit(message="\x1b[2J$(id)\u202e", author="`id`", branch=branch)
    url = server.url.replace("http://", "http://ada:s3cret@")
    async with watching(trigger_of(f"{url}/origin.git", tmp_path, branch=branch)) as watch:
        payload = await watch.next()
    assert payload["branch"] == branch
    assert payload["commits"][0] == {
        **{"sha": sha, "subject": "\ufffd[2J$(id)\ufffd", "author_name": "`id`", "url": None}
    }
    assert "s3cret" not in json.dumps(payload)


async def test_services_of_one_repository_share_one_poll(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    url = f"{server.url}/origin.git"
    sha = repository.commit({"a/x": "1", "b/x": "1"})
    GitSource(url, cache_dir=tmp_path / "cache").revision(sha)  # so that events need no network
    server.listings = 0
    manager = SharedStreamManager(log=structlog.get_logger("test"))
    triggers = [trigger_of(url, tmp_path, service=name, path=name, poll_interval=600.0) for name in "ab"]
    streams = [
        manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        for number, trigger in enumerate(triggers)
    ]
    watches = [
        Watch(trigger.filter_shared_stream(stream)) for trigger, stream in zip(triggers, streams, strict=True)
    ]
    try:
        assert [(await watch.next())["service"] for watch in watches] == ["a", "b"]
        assert server.listings == 1
    finally:
        for watch in watches:
            await watch.stop()
        await manager.stop_all()


async def test_the_shortest_interval_of_a_repository_wins(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    url = f"{server.url}/origin.git"
    repository.commit({"a": "1"})
    manager = SharedStreamManager(log=structlog.get_logger("test"))

    def watched(number: int, interval: float) -> Watch:
        trigger = trigger_of(url, tmp_path, service=f"s{number}", poll_interval=interval)
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        return Watch(trigger.filter_shared_stream(stream))

    slow = watched(0, 600.0)
    try:
        await slow.next()
        before = server.listings
        quick = watched(1, 0.2)
        await eventually(lambda: server.listings > before + 5)
        await quick.stop()
    finally:
        await slow.stop()
        await manager.stop_all()


async def test_a_host_that_says_nothing_does_not_slow_another(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    repository.commit({"a": "1"})
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        dead = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncExitStack() as stack:
            for number in range(60):
                trigger = trigger_of(f"{dead}/{number}.git", tmp_path, service=f"dead-{number}")
                await stack.enter_async_context(watching(trigger))
            alive = trigger_of(f"{server.url}/origin.git", tmp_path, poll_interval=0.2)
            await stack.enter_async_context(watching(alive))
            await eventually(lambda: server.listings > 5)


def test_only_services_of_one_repository_and_connection_share(tmp_path: Path) -> None:
    keys = {
        trigger_of("/a", tmp_path).shared_stream_key(),
        trigger_of("/a", tmp_path, service="x", branch="x", path="x", poll_interval=9).shared_stream_key(),
        trigger_of("/b", tmp_path).shared_stream_key(),
        trigger_of("/a", tmp_path, conn_id="c").shared_stream_key(),
    }
    assert len(keys) == 3


async def test_only_pushes_to_the_path_fire(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    store = Store()
    repository.commit({"svc/a": "1", "other/a": "1"})
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path, store, path="svc")) as watch:
        await watch.next()
        elsewhere = repository.commit({"other/a": "2"}, "elsewhere")
        await store.holds(elsewhere)
        assert watch.is_quiet
        mine = repository.commit({"svc/a": "2"}, "mine")
        payload = await watch.next()
    assert (payload["previous"], payload["revision"], payload["total"]) == (elsewhere, mine, 1)
    assert [commit["subject"] for commit in payload["commits"]] == ["mine"]


async def test_a_change_and_its_undoing_do_not_fire(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    store = Store()
    repository.commit({"svc/a": "1"})
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path, store, path="svc")) as watch:
        await watch.next()
        repository.commit({"svc/a": "2"}, push=False)
        await store.holds(repository.commit({"svc/a": "1"}))
        assert watch.is_quiet


async def test_a_force_push_fires(repository: GitRepository, server: GitServer, tmp_path: Path) -> None:
    base = repository.commit(message="base")
    old = repository.commit(message="old")
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path)) as watch:
        await watch.next()
        repository.git("reset", "-q", "--hard", base)
        new = repository.commit(message="new")
        payload = await watch.next()
        assert (payload["previous"], payload["revision"]) == (old, new)
        assert [commit["subject"] for commit in payload["commits"]] == ["new"]
        repository.push(f"{base}:main")
        payload = await watch.next()
        assert (payload["revision"], payload["total"]) == (base, 1)
        assert [commit["subject"] for commit in payload["commits"]] == ["base"]


async def test_a_deleted_branch_is_waited_for(
    repository: GitRepository, server: GitServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repository.commit()
    repository.commit(branch="topic")
    trigger = trigger_of(f"{server.url}/origin.git", tmp_path, branch="topic")
    async with watching(trigger) as watch:
        await watch.next()
        repository.git("push", "-q", "origin", ":topic")
        await polls(server, 4)
        assert watch.is_quiet
        sha = repository.commit(branch="topic")
        assert (await watch.next())["revision"] == sha


async def test_a_dead_remote_is_survived(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    repository.commit()
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path)) as watch:
        await watch.next()
        server.down = True
        await polls(server, 2)
        sha = repository.commit()
        assert watch.is_quiet
        server.down = False
        assert (await watch.next())["revision"] == sha


async def test_a_remote_that_is_dead_at_the_start_is_survived(
    repository: GitRepository, server: GitServer, tmp_path: Path
) -> None:
    sha = repository.commit()
    server.down = True
    async with watching(trigger_of(f"{server.url}/origin.git", tmp_path)) as watch:
        await polls(server, 1)
        server.down = False
        assert (await watch.next())["revision"] == sha


async def test_commits_that_cannot_be_fetched_do_not_hold_up_the_event(
    repository: GitRepository, tmp_path: Path
) -> None:
    sha = repository.commit()
    (tmp_path / "cache").write_text("not a folder")
    async with watching(trigger_of(repository.url, tmp_path, path="svc")) as watch:
        payload = await watch.next()
    assert (payload["revision"], payload["commits"], payload["total"]) == (sha, [{"sha": sha}], 1)


async def test_a_fetch_that_takes_long_lets_other_triggers_go_on(
    repository: GitRepository, tmp_path: Path
) -> None:
    sha = repository.commit()
    mirror = Mirror(repository.url, tmp_path / "cache")
    mirror.folder.parent.mkdir(parents=True)
    lock = FileLock(mirror.folder.with_suffix(".lock"))
    with lock:  # as another process that fetches
        async with watching(trigger_of(repository.url, tmp_path)) as watch:
            thread = "cd-blocking"
            await eventually(lambda: any(one.name.startswith(thread) for one in threading.enumerate()))
            assert watch.is_quiet
            lock.release()
            assert (await watch.next())["revision"] == sha


def test_the_triggerer_can_make_it_again() -> None:
    trigger = GitHeadTrigger(service="s", repository="/r", branch="b", path="p", poll_interval=1, conn_id="c")
    path, arguments = trigger.serialize()
    assert path == "airflow_cd.triggers.git_heads.GitHeadTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert GitHeadTrigger(**arguments).serialize() == (path, arguments)
