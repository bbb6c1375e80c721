"""Commands run as another user: what they can read, and that nothing of them stays."""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness.waiting import wait_until
from tests.support.build_user import as_root, build_user

from airflow_cd.exceptions import CommandError, CommandTimeoutError, RunnerError
from airflow_cd.processes.build_users import BuildUser
from airflow_cd.runners.base import Runner
from airflow_cd.runners.registry import open_runner

PYTHON = "/usr/bin/python3"  # that of the tests may be in a folder that is root's alone

# Looks for a secret in the environment and the memory of all that it descends from, and into folders.
PROBE = """
import os, re, sys
wanted = sys.argv[1][::-1].encode()

def parent(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search("PPid:\\s*([0-9]+)", status.read())[1])

def environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()

def memory(pid):
    with open(f"/proc/{pid}/maps") as maps:
        areas = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw.*(?:heap|stack)", maps.read(), re.MULTILINE)
    with open(f"/proc/{pid}/mem", "rb") as file:
        for start, end in areas:
            file.seek(int(start, 16))
            yield from file.read(int(end, 16) - int(start, 16)).splitlines()

pid, seen = parent(os.getpid()), 0
while pid > 1:
    for look in (environment, memory):
        try:
            if wanted in (look(pid) if look is environment else b"".join(look(pid))):
                print("found in", look.__name__)
        except OSError:
            pass
    pid, seen = parent(pid), seen + 1
for path in sys.argv[2:]:
    try:
        print("read", os.listdir(path) and path)
    except OSError:
        pass
print("parents" if seen > 1 else "no parents")
"""

# A task: it has a secret in its environment, and a runner for a command.
WORKER = """
import json, sys
from pathlib import Path
from airflow_cd.processes.build_users import BuildUser
from airflow_cd.runners.registry import open_runner
users, argv, folder = json.loads(sys.argv[1])
users = [BuildUser(name, uid, gid, Path(home)) for name, uid, gid, home in users]
runner = open_runner("build_users", users) if users else open_runner("subprocess")
with runner.job("job", Path(folder)):
    say = lambda line: print(line, flush=True)
    runner.run(argv, cwd=Path(folder), env={}, timeout=60, on_line=say)
"""


@pytest.fixture
def user() -> Iterator[BuildUser]:
    with build_user() as made:
        yield made


@pytest.fixture
def runner(user: BuildUser) -> Runner:
    return open_runner("build_users", [user])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def run(runner: Runner, folder: Path, *commands: list[str], timeout: float = 30) -> list[str]:
    lines: list[str] = []
    with runner.job("job", folder):
        for argv in commands:
            runner.run(argv, cwd=folder, env={}, timeout=timeout, on_line=lines.append)
    return lines


def worker(users: list[BuildUser], argv: list[str], folder: Path, **env: str) -> subprocess.Popen[str]:
    given = json.dumps([[[one.name, one.uid, one.gid, str(one.home)] for one in users], argv, str(folder)])
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, given], env={**os.environ, **env}, stdout=subprocess.PIPE, text=True
    )


@as_root
@pytest.mark.parametrize("kind", ["subprocess", "build_users"])
def test_what_a_command_can_read_of_its_worker(kind: str, user: BuildUser, folder: Path) -> None:
    secret = secrets.token_hex(20)
    kept = folder.parent / "store"  # closed, as data_dir is
    kept.mkdir(mode=0o700)
    (kept / "release").write_text("another service's")
    # Backwards, so that it is in no argument.
    argv = [PYTHON, "-c", PROBE, secret[::-1], str(kept)]
    users = [user] if kind == "build_users" else []
    with worker(users, argv, folder, AIRFLOW__CORE__FERNET_KEY=secret) as task:
        assert task.stdout is not None
        lines = task.stdout.read().splitlines()
    found = {"found in environment", "found in memory", f"read {kept}"}
    assert lines[-1] == "parents"
    # The worker's own user reads it all: the probe works.
    assert set(lines[:-1]) == (found if kind == "subprocess" else set())


@as_root
def test_a_command_is_in_no_group_of_the_worker_and_cannot_gain_rights(runner: Runner, folder: Path) -> None:
    code = "import os\nprint({*os.getgroups()} <= {os.getgid()}, 0 in (os.getuid(), os.getgid()))"
    status = ["grep", "-E", "^(CapEff|CapBnd|CapAmb|NoNewPrivs)", "/proc/self/status"]
    lines = run(runner, folder, [PYTHON, "-c", code], status)
    assert lines[0] == "True False"
    assert [line.split()[1].lstrip("0") for line in lines[1:]] == ["", "", "", "1"]


@as_root
def test_builds_at_the_same_time_do_not_see_one_another(tmp_path: Path) -> None:
    with build_user(0) as first, build_user(1) as second:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        (tmp_path / "one" / "own").write_text("first")
        started, said = threading.Event(), list[str]()

        def on_line(line: str) -> None:
            said.append(line)
            started.set()

        def wait_there() -> None:
            argv = ["sh", "-c", "echo $$; until [ -e go ]; do sleep 0.1; done"]
            runner = open_runner("build_users", [first, second])
            with runner.job("one", tmp_path / "one"):
                runner.run(argv, cwd=tmp_path / "one", env={}, timeout=60, on_line=on_line)

        thread = threading.Thread(target=wait_there)
        thread.start()
        assert started.wait(30)
        try:
            runner = open_runner("build_users", [first, second])
            look = ["sh", "-c", f"id -u; cat {first.home}/workspace/own /proc/{said[0]}/environ; true"]
            lines = run(runner, tmp_path / "two", look)
        finally:
            (first.home / "workspace" / "go").touch()
            thread.join(30)
    assert lines[0] == str(second.uid)
    assert len(lines) == 3
    assert all("Permission denied" in line for line in lines[1:])


@as_root
def test_the_workspace_comes_back_and_the_place_is_empty_for_the_next(
    user: BuildUser, runner: Runner, folder: Path
) -> None:
    (folder / "source").write_text("from git")
    shared = Path(tempfile.gettempdir()) / f"left-{user.uid}"
    make = f"cat source; echo made > product; echo x > $HOME/h; chmod 500 .; chmod 777 ..; echo > {shared}"
    assert run(runner, folder, ["sh", "-c", make]) == ["from git"]
    assert (folder / "product").read_text() == "made\n"
    assert (folder / "product").stat().st_uid == os.getuid()
    assert not shared.exists()
    assert list(user.home.iterdir()) == []
    assert stat.S_IMODE(user.home.stat().st_mode) == 0o700


@as_root
def test_the_workspace_of_a_command_that_failed_comes_back(runner: Runner, folder: Path) -> None:
    with pytest.raises(CommandError) as failed:
        run(runner, folder, ["sh", "-c", "echo report > report; echo bad >/dev/stderr; exit 3"])
    assert (failed.value.exit_code, failed.value.tail) == (3, ("bad",))
    assert (folder / "report").read_text() == "report\n"


# Leaves its group and session, and has no variable that marks it.
DAEMON = (
    "import os,time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(),flush=True)\ntime.sleep(300)"
)


@as_root
@pytest.mark.parametrize("seconds", ["0", "300"], ids=["ends", "is ended"])
def test_a_daemon_ends_with_the_command(runner: Runner, folder: Path, seconds: str) -> None:
    lines: list[str] = []
    start = ["sh", "-c", 'env -i "$0" -c "$1"; trap "" TERM; sleep "$2"', PYTHON, DAEMON, seconds]
    with suppress(CommandTimeoutError), runner.job("job", folder):
        runner.run(start, cwd=folder, env={}, timeout=4, on_line=lines.append)
    wait_until(lambda: not psutil.pid_exists(int(lines[0])), "the daemon is gone", timeout=10)


@as_root
def test_kill_ends_the_command(runner: Runner, folder: Path) -> None:
    started, failed = threading.Event(), []

    def go() -> None:
        try:
            with runner.job("job", folder):
                argv = ["sh", "-c", "echo up; sleep 300"]
                runner.run(argv, cwd=folder, env={}, timeout=60, on_line=lambda line: started.set())
        except CommandError as error:
            failed.append(error.exit_code)

    thread = threading.Thread(target=go)
    thread.start()
    assert started.wait(30)
    runner.kill()
    thread.join(30)
    assert failed == [-signal.SIGTERM]


@as_root
def test_a_command_dies_with_a_killed_worker(user: BuildUser, folder: Path) -> None:
    with worker([user], ["sh", "-c", "echo $$; trap '' TERM; while :; do sleep 1; done"], folder) as task:
        assert task.stdout is not None
        pid = int(task.stdout.readline())
        os.kill(task.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the command is gone", timeout=30)


@as_root
def test_a_program_that_is_missing_or_cannot_run_is_named(runner: Runner, folder: Path) -> None:
    (folder / "tool").write_text("#!/bin/sh\n")
    for program, code, reason in (("/nowhere/tool", 127, "not found"), ("./tool", 126, "chmod")):
        with pytest.raises(CommandError, match=reason) as failed:
            run(runner, folder, [program])
        assert failed.value.exit_code == code


@as_root
def test_a_user_that_can_use_the_docker_socket_runs_nothing(
    user: BuildUser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = user.home.with_name(f"{user.home.name}.sock")
    socket.touch()
    os.chown(socket, 0, user.gid)
    socket.chmod(0o660)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    try:
        with pytest.raises(RunnerError, match=rf"can use {socket}, and so become root"):
            run(open_runner("build_users", [user]), folder, ["touch", "ran"])
    finally:
        socket.unlink()
    assert not (folder / "ran").exists()


def test_a_worker_without_the_right_gets_a_plain_error(
    user: BuildUser, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not root, as far as changing the user goes: root itself needs no rule of sudo's.
    monkeypatch.setattr("airflow_cd.processes.build_users.is_root", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerError, match="'sudo' was not found; install it"):
        run(open_runner("build_users", [user]), folder, ["true"])
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    sudo.chmod(0o755)
    with pytest.raises(RunnerError, match="a password is required; `sudo -n -u`"):
        run(open_runner("build_users", [user]), folder, ["true"])
