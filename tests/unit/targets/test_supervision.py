"""How supervisord hears of programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.waiting import wait_until

from airflow_cd.exceptions import TargetError
from airflow_cd.targets.local import supervision
from airflow_cd.targets.local.supervision import Supervisor

SLEEPS = [sys.executable, "-c", "import time; time.sleep(3600)"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    one = Supervisor(tmp_path)
    yield one
    one.shutdown()


def test_a_damaged_file_of_one_program_stops_no_other(supervisor: Supervisor, tmp_path: Path) -> None:
    """Nor does it take time: what is there already is not read again."""
    supervisor.add("one", SLEEPS, tmp_path / "one.log")
    (tmp_path / "supervisor.d" / "damaged.conf").write_text("[program:damaged")
    supervisor.add("two", SLEEPS, tmp_path / "two.log")
    wait_until(
        lambda: is_running(supervisor, "one") and is_running(supervisor, "two"), "both run", timeout=20
    )


def test_a_program_that_is_added_again_is_another_one(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.add("one", SLEEPS, tmp_path / "one.log")
    wait_until(lambda: is_running(supervisor, "one"), "it runs", timeout=20)
    supervisor.add("one", ["/nowhere/to/be/found"], tmp_path / "one.log")
    wait_until(lambda: supervisor.process("one") is not None, "it is known", timeout=20)
    assert not is_running(supervisor, "one")
    supervisor.remove("one")
    assert supervisor.process("one") is None


def test_what_cannot_be_a_program_is_said(supervisor: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="supervisord cannot run 'one'.*'soon'"):
        supervisor.add("one", SLEEPS, tmp_path / "one.log", stop_seconds="soon")  # type: ignore[arg-type]


def test_one_that_a_former_version_started_is_told_its_own_way(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = supervision._MAIN.index("[rpcinterface:airflow_cd]")
    former = supervision._MAIN[:ours] + supervision._MAIN[supervision._MAIN.index("[include]") :]
    monkeypatch.setattr(supervision, "_MAIN", former)
    supervisor.add("one", SLEEPS, tmp_path / "one.log")
    wait_until(lambda: is_running(supervisor, "one"), "it runs", timeout=20)


def is_running(supervisor: Supervisor, name: str) -> bool:
    process = supervisor.process(name)
    return process is not None and process.state == "RUNNING"
