"""A scratch folder does not outlive its process for long."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_cd.processes.scratch import scratch_folder

HOLD = """
import sys
from pathlib import Path
from airflow_cd.processes.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), "work") as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("")
    (folder / "deep").chmod(0o500)
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder(root: Path) -> tuple[subprocess.Popen[str], Path]:
    argv = [sys.executable, "-c", HOLD, str(root)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir()]


def test_it_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "root", "work") as folder:
        assert list(folder.iterdir()) == []
        assert folder.name.startswith("work-")
        (folder / "file").write_text("")
    assert not folder.exists()
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "root", "work"):
        1 / 0  # noqa: B018
    assert [path.name for path in (tmp_path / "root").iterdir()] in ([], [".lock"])


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    process, left = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left.is_dir()
    with scratch_folder(tmp_path, "other") as folder:
        assert folders(tmp_path) == [folder]
    assert folders(tmp_path) == []


def test_what_a_living_process_works_in_stays(tmp_path: Path) -> None:
    process, work = holder(tmp_path)
    with scratch_folder(tmp_path, "other"):
        assert (work / "deep" / "file").is_file()
    process.communicate()
    assert process.returncode == 0
    assert folders(tmp_path) == []
