"""Commands run as processes: streamed, bounded, and without anything of Airflow's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness.waiting import wait_until

from airflow_cd.exceptions import CommandError, CommandTimeoutError
from airflow_cd.runners.registry import open_runner


def run(folder: Path, *argv: str, timeout: float = 20, env: dict[str, str] | None = None) -> list[str]:
    lines: list[str] = []
    open_runner("subprocess").run(argv, cwd=folder, env=env or {}, timeout=timeout, on_line=lines.append)
    return lines


def python(folder: Path, code: str, **options: float) -> list[str]:
    return run(folder, "python", "-c", code, **options)  # type: ignore[arg-type]


def test_output_comes_while_the_command_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = "import os\nprint('first')\nwhile not os.path.exists('go'): pass\nprint('last', end='')"
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        go.touch()  # the command goes on only when its first line has arrived

    open_runner("subprocess").run(["python", "-c", code], cwd=tmp_path, env={}, timeout=20, on_line=on_line)
    assert lines == ["first", "last"]


def test_the_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("MY_TOKEN", "secret")
    code = "import os; print(*sorted(os.environ), sep='\\n')"
    names = run(tmp_path, "python", "-c", code, env={"GIVEN": "1"})
    assert set(names) - {"LC_CTYPE"} == {
        *(
            "CD_PROCESS_COOKIE",
            "GIVEN",
            "HOME",
            "LANG",
            "PATH",
            "PYTHONUNBUFFERED",
            "SOURCE_DATE_EPOCH",
            "TMPDIR",
            "TZ",
        )
    }


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    code = "import subprocess,time\nprint(subprocess.Popen(['sleep','300']).pid)\ntime.sleep(300)"
    lines: list[str] = []
    with pytest.raises(CommandTimeoutError, match="longer than 2 s"):
        open_runner("subprocess").run(
            ["python", "-c", code], cwd=tmp_path, env={}, timeout=2, on_line=lines.append
        )
    wait_until(lambda: not psutil.pid_exists(int(lines[0])), "the grandchild is gone", timeout=10)


def test_what_a_command_leaves_running_does_not_hold_it_up(tmp_path: Path) -> None:
    lines = run(tmp_path, "sh", "-c", "sleep 300 & echo $!")
    wait_until(lambda: not psutil.pid_exists(int(lines[0])), "the orphan is gone", timeout=10)


# Leaves its group and session as daemons do, twice over.
DAEMON = """
import os, sys, time
if os.fork():
    time.sleep(float(sys.argv[1]))
    sys.exit()
os.setsid()
if os.fork():
    sys.exit()
print(os.getpid(), flush=True)
for fd in range(3):
    os.close(fd)
time.sleep(300)
"""


@pytest.mark.parametrize("seconds", ["0.5", "300"], ids=["ends", "is ended"])
def test_a_daemon_that_a_command_starts_ends_with_it(tmp_path: Path, seconds: str) -> None:
    lines: list[str] = []
    argv = ["python", "-c", DAEMON, seconds]
    with suppress(CommandTimeoutError):
        open_runner("subprocess").run(argv, cwd=tmp_path, env={}, timeout=10, on_line=lines.append)
    wait_until(lambda: not psutil.pid_exists(int(lines[0])), "the daemon is gone", timeout=10)


def test_what_is_started_without_the_cookie_stays(tmp_path: Path) -> None:
    argv = ["env", "-u", "CD_PROCESS_COOKIE", "setsid", "sh", "-c", "echo $$; exec sleep 300 >/dev/null 2>&1"]
    lines: list[str] = []
    open_runner("subprocess").run(
        ["sh", "-c", 'exec "$@" &', "sh", *argv], cwd=tmp_path, env={}, timeout=20, on_line=lines.append
    )
    process = psutil.Process(int(lines[0]))
    assert process.status() != psutil.STATUS_ZOMBIE
    process.kill()


def test_kill_ends_the_command(tmp_path: Path) -> None:
    runner = open_runner("subprocess")
    started, failed = threading.Event(), []

    def go() -> None:
        try:
            argv = ["sh", "-c", "echo up; sleep 300"]
            runner.run(argv, cwd=tmp_path, env={}, timeout=60, on_line=lambda line: started.set())
        except CommandError as error:
            failed.append(error.exit_code)

    thread = threading.Thread(target=go)
    thread.start()
    assert started.wait(20)
    runner.kill()
    thread.join(20)
    assert failed == [-signal.SIGTERM]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_command_dies_with_a_killed_worker(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from airflow_cd.runners.registry import open_runner
argv = ["sh", "-c", "echo $$; exec sleep 300"]
say = lambda line: print(line, flush=True)
open_runner("subprocess").run(argv, cwd=Path("."), env={}, timeout=99, on_line=say)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the command is gone", timeout=10)
