"""Commands in containers: confined, gone on with after a crash, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.engine import PYTHON, left_of

from airflow_cd.exceptions import CommandError, RunnerError
from airflow_cd.hooks.docker import docker_client
from airflow_cd.model.runner import DockerRunnerSettings
from airflow_cd.runners.base import Runner
from airflow_cd.runners.docker import name_on_engine
from airflow_cd.runners.registry import open_runner

pytestmark = pytest.mark.usefixtures("nothing_left")

# A worker that runs two commands; the first says so, and goes on when it finds the file `go` in its home.
WORKER = f"""
import sys
from pathlib import Path
from airflow_cd.hooks.docker import docker_client
from airflow_cd.model.runner import DockerRunnerSettings
from airflow_cd.runners.registry import open_runner

folder = Path(sys.argv[1])
runner = open_runner("docker", DockerRunnerSettings(image={PYTHON!r}), lambda: docker_client(None, None))
say = lambda line: print(line, flush=True)
with runner.job(str(folder.parent), folder):
    hold = "echo begun; echo $$ >> starts; until [ -e $HOME/go ]; do sleep 0.1; done"
    for command in (hold, "echo second"):
        runner.run(["sh", "-c", command], cwd=folder, env={{}}, timeout=120, on_line=say)
"""


@pytest.fixture
def nothing_left(engine: Any, tmp_path: Path) -> Iterator[None]:
    """Jobs are named after the test's folder; nothing on the engine is called so at the end."""
    yield
    assert left_of(engine, str(tmp_path)) == set()


def open_docker(**settings: Any) -> Runner:
    settings = {"image": PYTHON, **settings}
    engine = settings.get("engine")
    return open_runner("docker", DockerRunnerSettings(**settings), lambda: docker_client(engine, None))


def run(folder: Path, *argv: str, **settings: Any) -> list[str]:
    runner, lines = open_docker(**settings), []  # type: ignore[var-annotated]
    with runner.job(str(folder), folder):
        runner.run(argv, cwd=folder, env={}, timeout=60, on_line=lines.append)
    return lines


def test_the_user_is_nobody_special(tmp_path: Path) -> None:
    code = "import os; print(os.getuid(), os.getgid(), open('/proc/self/status').read())"
    status = "\n".join(run(tmp_path, "python3", "-c", code))
    assert status.startswith("1000 1000 ")
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert run(tmp_path, "id", "-u", user="1234") == ["1234"]


def test_memory_is_limited_and_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="more memory than `memory: 64m`"):
        run(tmp_path, "python3", "-c", "x = b'1' * 300_000_000", memory="64m")


def test_the_network_can_be_kept_away(tmp_path: Path) -> None:
    assert run(tmp_path, "ls", "/sys/class/net", network="none") == ["lo"]
    assert "eth0" in run(tmp_path, "ls", "/sys/class/net")


def test_an_image_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        RunnerError, match=r"image '127\.0\.0\.1:1/none' cannot be had.*runner\.docker\.image"
    ):
        run(tmp_path, "true", image="127.0.0.1:1/none")


def test_an_engine_that_does_not_answer_is_no_failing_command(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="the Docker engine failed"):
        run(tmp_path, "true", engine="tcp://127.0.0.1:1")


@pytest.mark.parametrize("when", ["it still runs", "it has ended"])
def test_a_killed_workers_command_is_gone_on_with(tmp_path: Path, engine: Any, when: str) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"begun\n"
        os.kill(worker.pid, signal.SIGKILL)
    (name,) = [one for one in left_of(engine, str(tmp_path)) if one.endswith("-0")]
    container = engine.containers.get(name)
    assert container.status == "running"
    go = ["sh", "-c", "touch $HOME/go"]
    if when == "it has ended":
        container.exec_run(go)
        container.wait()
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as retry:
        assert retry.stdout is not None
        assert retry.stdout.readline() == b"begun\n"  # said to the first try; what was said is not lost
        if when == "it still runs":
            container.exec_run(go)
        assert retry.stdout.read() == b"second\n"
    assert retry.returncode == 0
    assert len((folder / "starts").read_text().splitlines()) == 1


def test_a_command_whose_engine_ended_it_is_run_again(tmp_path: Path, engine: Any) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"begun\n"
        os.kill(worker.pid, signal.SIGKILL)
    (name,) = [one for one in left_of(engine, str(tmp_path)) if one.endswith("-0")]
    engine.containers.get(name).kill()
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as retry:
        assert retry.stdout is not None and retry.stdout.readline() == b"begun\n"
        container = engine.containers.get(name)
        wait_until(
            lambda: container.exec_run(["sh", "-c", "touch $HOME/go"])[0] == 0, "it goes on", timeout=30
        )
        assert retry.stdout.read() == b"second\n"
    assert len((folder / "starts").read_text().splitlines()) == 1


def test_what_nobody_came_back_for_is_removed(tmp_path: Path, engine: Any) -> None:
    label = {"airflow-cd.runner.until": "1"}
    engine.volumes.create("cd-abandoned", labels=label)
    volumes = {"cd-abandoned": {"bind": "/cd"}}
    engine.containers.create(PYTHON, ["true"], name="cd-abandoned-0", labels=label, volumes=volumes)
    run(tmp_path, "true")
    assert engine.containers.list(all=True, filters={"name": "cd-abandoned"}) == []
    assert engine.volumes.list(filters={"name": "cd-abandoned"}) == []


def test_files_of_another_try_never_get_into_a_workspace(tmp_path: Path, engine: Any) -> None:
    volume = name_on_engine(str(tmp_path))
    engine.volumes.create(volume)
    mounted = {volume: {"bind": "/cd"}}
    user = engine.containers.create(PYTHON, ["true"], name=f"user-of-{volume}", volumes=mounted)
    try:
        with pytest.raises(RunnerError, match="volume is in use"):
            run(tmp_path, "true")
    finally:
        user.remove()
    run(tmp_path, "true")
