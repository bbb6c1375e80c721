"""What only processes of this machine can get wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from harness.ports import is_listening
from harness.waiting import wait_until
from tests.support.places import LocalPlace

from airflow_cd.exceptions import NotReadyError, TargetError
from airflow_cd.targets.local.target import root_of, shutdown


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocalPlace]:
    one = LocalPlace(tmp_path)
    yield one
    one.close()


# Files that appear on the way of a second deployment, from its begin to its end.
MOMENTS = [
    "lease.json",
    ".*.tar.gz",
    "releases/*/app.py",
    "instance-2.json",
    "instance-2.log",
    "generations/2/record.json",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_deployment_killed_anywhere_is_finished_by_the_next(place: LocalPlace, moment: str) -> None:
    place.deploy(place.release("one"))
    two = place.release("two")
    folder = place.data / "local/hello/production"

    def times() -> dict[Path, int]:
        found = {}
        for path in folder.glob(moment):
            with suppress(FileNotFoundError):  # some are there for a moment only
                found[path] = path.stat().st_mtime_ns
        return found

    before = times()
    process = place.deploying_process(two, 1)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()

    def reached() -> bool:
        return times() != before or process.poll() is not None

    wait_until(reached, f"{moment} appears", timeout=20, every=0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert place.served() in ("one", "two")
    place.deploy(two, expected=place.target.record().generation)
    assert place.served() == "two"
    assert place.target.record().generation == 2
    assert place.instances() == ["hello.production.2"]
    assert list(folder.glob(".*")) == []


def test_nothing_of_airflow_reaches_a_service(place: LocalPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "secret")
    monkeypatch.setenv("AIRFLOW_CONN_X", "secret")
    one = place.release("one")
    place.deploy(one)
    env = json.loads(place.served("/env"))
    assert not [name for name in env if name.startswith(("AIRFLOW", "SUPERVISOR"))]
    assert (env["CD_RELEASE"], env["CD_ENVIRONMENT"]) == (one.digest, "production")


def test_a_service_that_dies_is_started_again(place: LocalPlace) -> None:
    place.deploy(place.release("one"))
    (pid,) = pids(place)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_until(lambda: pids(place) not in ([], [pid]), "another process runs", timeout=20)
    wait_until(lambda: place.served() == "one", "it answers", timeout=10)


def test_everything_comes_back_after_the_supervisor_was_gone(place: LocalPlace) -> None:
    one = place.release("one")
    place.deploy(one)
    shutdown(root_of(place.data))
    assert not is_listening(place.port)
    place.deploy(one)
    assert (place.served(), place.target.record().generation) == ("one", 1)


def test_what_an_instance_started_in_a_session_of_its_own_ends_with_it(tmp_path: Path) -> None:
    script = 'setsid sleep 300 & echo $! >"$0/$CD_VERSION.pid.txt"; exec python app.py'
    place = LocalPlace(tmp_path, command=["sh", "-c", script, str(tmp_path)])
    try:
        place.deploy(place.release("one"))
        pid = int((tmp_path / "one.pid.txt").read_text())
        assert psutil.pid_exists(pid)
        place.deploy(place.release("two"))
        wait_until(lambda: not psutil.pid_exists(pid), "the daemon of the old instance is gone", timeout=10)
        assert psutil.pid_exists(int((tmp_path / "two.pid.txt").read_text()))
    finally:
        shutdown(root_of(place.data))


# Answers byte by byte, and never has said it all.
DRIBBLING = """
import os, socket, time
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    try:
        connection.sendall(b"HTTP/1.1 200 ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        pass
"""


def test_an_instance_that_never_ends_its_answer_is_not_ready(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path, command=["python", "-c", DRIBBLING], ready="/ready", start_timeout="3s")
    try:
        with pytest.raises(NotReadyError, match="/ready did not answer on port .* within 3 s"):
            place.deploy(place.release("one"))
    finally:
        shutdown(root_of(place.data))


def test_a_port_that_is_taken_is_said_before_anything_starts(place: LocalPlace) -> None:
    argv = [sys.executable, "-m", "http.server", str(place.port), "--bind", "127.0.0.1"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as other:
        wait_until(lambda: is_listening(place.port), "the port is taken", timeout=10)
        with pytest.raises(TargetError, match=f"127.0.0.1:{place.port}.*process {other.pid}"):
            place.deploy(place.release("one"))
        other.kill()
    assert place.target.record().current is None


def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    hostile = ["python", "-c", "import app", "a b", "%(x)s", "; touch evil", "'\"", "new\nline", "$(id)"]
    place = LocalPlace(tmp_path, command=hostile)
    try:
        place.deploy(place.release("one"))
        (pid,) = pids(place)
        assert Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1] == hostile[1:]
    finally:
        shutdown(root_of(place.data))


def pids(place: LocalPlace) -> list[int]:
    from airflow_cd.targets.local.supervision import Supervisor

    supervisor = Supervisor(root_of(place.data))
    found = [supervisor.process(name) for name in place.instances()]
    return [process.pid for process in found if process and process.alive]
