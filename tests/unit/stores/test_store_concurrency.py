"""Every artifact store under several writers at once, and under writers that are killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.exceptions import ArtifactNotFoundError
from airflow_cd.stores.base import ArtifactStore

MEGABYTE = 1024 * 1024

PUT_ALL = """
import sys
from pathlib import Path
from airflow_cd.stores.registry import open_store
store = open_store(sys.argv[1])
sys.stdin.readline()
for path in sys.argv[2:]:
    print(store.put_file(Path(path)))
"""
PUT_REFS = """
import sys
from airflow_cd.stores.registry import open_store
store, writer = open_store(sys.argv[1]), int(sys.argv[2])
for turn in range(40):
    store.put_ref("current", {"writer": writer, "turn": turn, "padding": str(writer) * 20_000})
"""
PUT_ONE = """
import sys
from pathlib import Path
from airflow_cd.stores.registry import open_store
open_store(sys.argv[1]).put_file(Path(sys.argv[2]))
"""


def started(code: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *args], text=True, **options)


def test_threads_write_at_once(store: ArtifactStore) -> None:
    contents = [b"%d" % (i % 5) * 100_000 for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(store.put_bytes, contents))
    assert [store.get_bytes(digest) for digest in digests] == contents


def test_processes_write_at_once(store: ArtifactStore, tmp_path: Path) -> None:
    contents = [os.urandom(MEGABYTE) for _ in range(4)]
    paths = [tmp_path / str(number) for number in range(4)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    wanted = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    writers = [started(PUT_ALL, store.url, *map(str, paths), **pipes) for _ in range(4)]
    for writer in writers:  # all of them are up before the first may start
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        printed, _ = writer.communicate(timeout=120)
        assert (writer.returncode, printed.split()) == (0, wanted)
    assert [store.get_bytes(digest) for digest in wanted] == contents


def test_a_reference_is_never_seen_half_written(store: ArtifactStore) -> None:
    store.put_ref("current", {"writer": 9, "turn": -1, "padding": "9" * 20_000})
    writers = [started(PUT_REFS, store.url, str(number)) for number in (1, 2)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        value = store.get_ref("current")
        assert value is not None
        assert value["padding"] == str(value["writer"]) * 20_000
        seen.add((value["writer"], value["turn"]))
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(seen) > 1
    last = store.get_ref("current")
    assert last is not None
    assert last["turn"] == 39


def test_a_killed_writer_leaves_nothing_to_be_seen(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    os.mkfifo(source)
    written = b"half" * MEGABYTE
    writer = started(PUT_ONE, store.url, str(source))
    with source.open("wb") as pipe:
        # A pipe holds 64 KiB or so: once this returns, most has arrived, and the writer waits for the rest.
        pipe.write(written)
        pipe.flush()
        writer.kill()
        assert writer.wait(timeout=60) == -9
    for length in (len(written), 0):
        digest = f"sha256:{hashlib.sha256(written[:length]).hexdigest()}"
        assert not store.has(digest)
        with pytest.raises(ArtifactNotFoundError):
            store.get_bytes(digest)
    assert store.get_bytes(store.put_bytes(written)) == written
