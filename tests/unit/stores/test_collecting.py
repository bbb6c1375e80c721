"""
A collector beside a task, in two processes, which act one after the other at each point that matters.

The collector stands still before it moves a blob into the trash, or between that and its look at it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from airflow_cd.stores.base import CollectableStore, Stored
from airflow_cd.stores.filesystem import FilesystemStore

NOW = datetime.now(timezone.utc)
CONTENT = b"a workspace"
TASK = """
import sys
from airflow_cd.stores.filesystem import FilesystemStore
store, digest = FilesystemStore(sys.argv[1]), sys.argv[2]
acts = {
    "put": lambda: store.put_bytes(b"a workspace") == digest,
    "touch": lambda: store.touch(digest),
    "read": lambda: store.get_bytes(digest) == b"a workspace",
    "has": lambda: store.has(digest),
    "put_ref": lambda: store.put_ref("builds/one", {"workspace": digest}) is None,
    "get_ref": lambda: store.get_ref("builds/one") == {"workspace": digest},
}
for line in sys.stdin:
    print(acts[line.strip()](), flush=True)
"""
KILLED = """
import os, sys
from datetime import datetime, timezone
from airflow_cd.stores.filesystem import FilesystemStore
store, really = FilesystemStore(sys.argv[1]), os.rename
def rename(*args):
    really(*args)
    os._exit(9)
os.rename = rename
store.discard(store.look(*sys.argv[2:]), "hello", datetime.now(timezone.utc))
"""


class Task:
    """Another process that uses the same store."""

    def __init__(self, store: FilesystemStore, digest: str) -> None:
        argv = [sys.executable, "-c", TASK, store.url, digest]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def does(self, act: str) -> bool:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{act}\n")
        return self._process.stdout.readline() == "True\n"

    def end(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    found = FilesystemStore((tmp_path / "store").as_uri())
    assert isinstance(found, CollectableStore)
    found.put_ref("builds/one", {"workspace": found.put_bytes(CONTENT)})
    return found


@pytest.fixture
def digest(store: FilesystemStore) -> str:
    return next(store.blobs()).name


@pytest.fixture
def task(store: FilesystemStore, digest: str) -> Iterator[Task]:
    process = Task(store, digest)
    yield process
    process.end()


def stopping(monkeypatch: pytest.MonkeyPatch, point: str, act: Callable[[], object]) -> None:
    """Let the task act while the collector stands at this point."""
    really = os.rename

    def rename(source: Path, target: Path) -> None:
        if point == "before the move":
            act()
        really(source, target)
        if point == "after the move":
            act()

    monkeypatch.setattr(os, "rename", rename)


BLOB_ACTS = ["put", "touch", "read", "has"]
POINTS = ["before the move", "after the move", "after the look"]


def seen(store: FilesystemStore, act: str, digest: str) -> Stored:
    found = store.look("ref", "builds/one") if act.endswith("ref") else store.look("blob", digest)
    assert found is not None
    return found


@pytest.mark.parametrize("act", [*BLOB_ACTS, "put_ref", "get_ref"])
@pytest.mark.parametrize("point", POINTS)
def test_no_use_loses_what_it_uses(
    store: FilesystemStore, digest: str, task: Task, monkeypatch: pytest.MonkeyPatch, point: str, act: str
) -> None:
    one = seen(store, act, digest)
    done = []
    stopping(monkeypatch, point, lambda: done.append(task.does(act)))
    removed = store.discard(one, "hello", NOW)
    if point == "after the look":
        assert removed
        done.append(task.does(act))
    assert done == [True], "the task did not find what it needs, or could not write it"
    is_only_read_before = point == "before the move" and act in ("read", "has", "get_ref")
    there = store.look(one.kind, one.name)
    assert (there is None) == is_only_read_before
    if there is not None:  # so that the next collection sees a new use
        assert there.mark != one.mark and there.changed >= one.changed
    assert task.does("get_ref" if one.kind == "ref" else "read")


@pytest.mark.parametrize("act", [*BLOB_ACTS, "put_ref", "get_ref"])
def test_a_collector_that_was_killed_loses_nothing(
    store: FilesystemStore, digest: str, task: Task, act: str
) -> None:
    one = seen(store, act, digest)
    argv = [sys.executable, "-c", KILLED, store.url, one.kind, one.name]
    assert subprocess.run(argv, timeout=60).returncode == 9
    assert store.look(one.kind, one.name) is None
    assert task.does(act) and store.look(one.kind, one.name) is not None


def test_what_was_put_in_its_place_meanwhile_is_not_replaced(store: FilesystemStore) -> None:
    old = store.look("ref", "builds/one")
    assert old is not None and store.discard(old, "hello", NOW)
    store.put_ref("builds/one", {"workspace": "another"})
    (thrown,) = store.discarded()
    assert store.take_back(thrown) and store.get_ref("builds/one") == {"workspace": "another"}
    assert list(store.discarded()) == []


def test_what_is_thrown_can_be_listed_taken_back_and_deleted(store: FilesystemStore, digest: str) -> None:
    blob, ref = store.look("blob", digest), store.look("ref", "builds/one")
    assert blob is not None and ref is not None
    assert store.discard(blob, "hello", NOW) and store.discard(ref, "other", NOW + timedelta(days=1))
    assert not store.discard(blob, "hello", NOW), "another collector removed it"
    found = {(one.kind, one.name, one.owner): one for one in store.discarded()}
    assert set(found) == {("blob", digest, "hello"), ("ref", "builds/one", "other")}
    thrown_ref = found["ref", "builds/one", "other"]
    assert thrown_ref.at == (NOW + timedelta(days=1)).replace(microsecond=0)
    assert store.read_discarded(thrown_ref) == {"workspace": digest}
    assert store.delete(thrown_ref) and not store.delete(thrown_ref)
    assert store.get_ref("builds/one") is None
    assert store.take_back(found["blob", digest, "hello"]) and store.get_bytes(digest) == CONTENT
    assert not store.take_back(thrown_ref)
    assert list((store.root / "trash").rglob("*.*")) == []


def test_a_file_system_without_links_will_do(
    store: FilesystemStore, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    blob = store.look("blob", digest)
    assert blob is not None and store.discard(blob, "hello", NOW)
    assert store.get_bytes(digest) == CONTENT and list(store.discarded()) == []


# A collector leaves alone what was used within a day. Here a day has this many seconds.
DAY = 0.05
USING = """
import random, sys, time
from airflow_cd.stores.filesystem import FilesystemStore
store, digest = FilesystemStore(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for number in range(150):
    time.sleep(random.random() * 0.15)
    if number % 3:
        assert store.touch(digest), f"turn {number}: gone"
    assert store.get_bytes(digest) == b"a workspace"
    assert store.get_ref("builds/one") == {"workspace": digest}
"""


def test_many_uses_beside_many_collectors(store: FilesystemStore, digest: str) -> None:
    argv = [sys.executable, "-c", USING, store.url, digest]
    users = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    removed: list[bool] = []

    def collect(number: int) -> None:
        while any(user.poll() is None for user in users):
            for one in (store.look("blob", digest), store.look("ref", "builds/one")):
                if one is not None and time.time() - one.changed.timestamp() > DAY:
                    removed.append(store.discard(one, f"c{number}", NOW))
            time.sleep(0.001)

    for user in users:
        assert user.stdout is not None and user.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(collect, range(2)))
    assert [user.wait() for user in users] == [0, 0]
    assert len(removed) > 20 and any(removed)
