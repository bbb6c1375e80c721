"""Keys in files are gone with their process, also when that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from airflow_cd.processes import private_folder

_WRITE = """
import signal
from airflow_cd.processes.private_folder import folder_of_process, private_folder
with private_folder("git") as folder:
    (folder / "identity").write_text("s3cret")
    (folder_of_process("kube") / "key").write_text("s3cret")
    print("written", flush=True)
    {end}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def other_process(end: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _WRITE.format(end=end)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    return process


def keys(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("cd-*/*"))


def test_they_are_gone_with_their_process(folder: Path) -> None:
    with other_process("pass") as process:
        process.wait(20)
    assert list(folder.iterdir()) == []


def test_those_of_a_killed_process_are_removed_by_the_next(folder: Path) -> None:
    with other_process("signal.pause()") as lives, other_process("signal.pause()") as killed:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(20)
        assert len(keys(folder)) == 4
        private_folder.sweep()
        # What a living process holds stays, also when it was stopped.
        os.kill(lives.pid, signal.SIGSTOP)
        private_folder.sweep()
        assert keys(folder) == ["identity", "key"]
        os.kill(lives.pid, signal.SIGKILL)
    private_folder.sweep()
    assert keys(folder) == []


def test_nobody_else_can_read_them(folder: Path) -> None:
    with private_folder.private_folder("git") as own:
        assert own.stat().st_mode & 0o777 == 0o700
