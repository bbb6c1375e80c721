"""Build and test commands in containers, on a running Airflow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.services import TestService
from tests.support.engine import PYTHON

pytestmark = [pytest.mark.scheduler, pytest.mark.usefixtures("engine")]

MakeService = Callable[..., TestService]
IN_CONTAINER = "import os; assert os.getuid() == 1000 and os.getcwd() == '/cd/workspace'"
# Says how often it was started, and waits until a person lets it go on.
HELD = "echo start >> $HOME/starts; cp $HOME/starts src/starts; until [ -e $HOME/go ]; do sleep 0.2; done"


def docker(service: MakeService, *build: list[str]) -> TestService:
    hello = service("deployment", runner={"docker": {"image": PYTHON, "network": "none", "memory": "512m"}})
    suite = hello.definition["test"]["unit"]
    commands = [["python3", *argv[1:]] for argv in suite["commands"]]
    hello.change(
        build=[["python3", "-c", IN_CONTAINER], *build],
        test={"unit": {**suite, "commands": commands}},
    )
    return hello


def test_a_commit_is_built_and_tested_in_containers(service: MakeService) -> None:
    hello = docker(service, ["sh", "-c", "echo built > src/built"])
    run = hello.run()
    run.wait_for("success", timeout=240)
    assert hello.served() == "first"
    assert (hello.files() / "src" / "built").read_text() == "built\n"
    assert run.xcom("test")["total"] == 1

    hello.commit("second", tests_pass=False)
    run = hello.run()
    run.wait_for("failed", timeout=240)
    assert "bad" in run.log("test")
    assert hello.served() == "first"


def test_a_build_outlives_its_worker(service: MakeService, airflow: RunningAirflow, engine: Any) -> None:
    hello = docker(service, ["sh", "-c", HELD])
    run = hello.run()
    container = wait_until(lambda: held(engine), "the build is held", timeout=120, explain=run.explain)
    airflow.kill_worker(worker_of(run, "build"))
    wait_until(lambda: tries(run, "build") > 1, "it is tried again", timeout=90, explain=run.explain)
    container.exec_run(["sh", "-c", "touch $HOME/go"])
    run.wait_for("success", timeout=240)
    assert "Going on with container" in run.log("build")
    assert (hello.files() / "src" / "starts").read_text() == "start\n"


def tries(run: Run, task_id: str) -> int:
    return int(run.api.task_instances(run.dag_id, run.run_id)[task_id]["try_number"])


def held(engine: Any) -> Any:
    """Return the container in which a build is held."""
    from docker.errors import APIError

    for container in engine.containers.list(
        ignore_removed=True, filters={"label": "airflow-cd.runner.until"}
    ):
        with suppress(APIError):  # it ended meanwhile
            if container.exec_run(["test", "-e", "/cd/home/starts"])[0] == 0:
                return container
    return None


def worker_of(run: Run, task_id: str) -> int:
    """Return the process that executes a task: Airflow names it after the task instance."""
    instance = run.api.task_instances(run.dag_id, run.run_id)[task_id]["id"]
    for process in psutil.process_iter():
        try:
            if instance in " ".join(process.cmdline()):
                return process.pid
        except psutil.Error:
            continue
    raise AssertionError(f"no process executes {task_id}")
