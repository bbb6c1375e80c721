"""A service whose tasks, commands and processes can be held anywhere, and killed there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.services import APP, DAG_FILE, WRITE_REPORT, TestService
from tests.support.trap import Trap

from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.local.supervision import Supervisor
from airflow_cd.targets.local.target import root_of

# Holds the app before it listens. Braces are doubled, as everywhere in these templates.
_HELD_APP = """
import os
TRAP = os.environ["TRAPS"] + "/app." + os.environ["CD_ENVIRONMENT"]
if os.path.exists(TRAP):
    open(TRAP).read()
"""

# Holds every task before and after its operator's work, when that is known to nobody but the task, and once
# more when it reported what it skips but not yet its success.
_HELD_TASKS = """
import os
from datetime import timedelta
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

def hold(place):
    if os.path.exists(path := f"{traps}/{{place}}"):
        open(path).read()

def held(name, run):
    def call(task, *args, **kwargs):
        hold(f"{{task.task_id}}.{{name}}.begins")
        try:
            return run(task, *args, **kwargs)
        finally:
            hold(f"{{task.task_id}}.{{name}}.ended")
    return call

def held_success(context, ti, succeed=task_runner._handle_current_task_success):
    hold(f"{{ti.task_id}}.success")
    return succeed(context, ti)

task_runner._handle_current_task_success = held_success

for dag in [value for value in globals().values() if isinstance(value, DAG)]:
    for task in dag.tasks:
        task.retry_delay = timedelta(seconds={retry_delay})
    for kind in {{type(task) for task in dag.tasks}}:
        for name in ("execute", "resume_execution"):
            setattr(kind, name, held(name, getattr(kind, name)))
"""

# A command that starts another one; both hold.
_HELD_COMMAND = """
import os, subprocess, sys
if os.path.exists(sys.argv[1]):
    subprocess.run([sys.executable, "-c", "import sys; open(sys.argv[1]).read()", sys.argv[1]])
"""


class TrappedService(TestService):
    """
    A service with traps. Places are ``build`` and ``test`` (commands), ``app.<environment>`` (a process
    before it listens), ``<task_id>.<method>.begins`` or ``.ended`` with the methods ``execute`` and
    ``resume_execution`` (after a deferral or an answer), and ``<task_id>.success``.

    :param environments: their names; the last one is production
    :param asks: whether every environment has an approval
    :param retry_delay: seconds between a task's tries
    """

    def __init__(
        self,
        airflow: RunningAirflow,
        name: str,
        pipeline: str,
        folder: Path,
        *,
        environments: tuple[str, ...] = TestService.environments,
        asks: bool = False,
        retry_delay: float = 0.2,
        **changes: Any,
    ) -> None:
        self.environments, self._asks = environments, asks
        self.traps = folder / "traps"
        self.traps.mkdir(parents=True)
        self.app = _HELD_APP + APP
        held = _HELD_TASKS.format(traps=self.traps, retry_delay=retry_delay)
        self.dag_file = DAG_FILE + held.replace("{", "{{").replace("}", "}}")
        super().__init__(airflow, name, pipeline, folder, **changes)

    def trap(self, place: str) -> Trap:
        """Hold the process that comes to this place."""
        return Trap(self.traps / place).set()

    def kill_worker_in(self, trap: Trap, run: Run) -> None:
        """Kill the worker of the task that runs into this trap, once."""
        (victim,) = trap.caught(explain=run.explain)
        self.airflow.kill_worker(victim.pid)
        trap.remove()

    def kill_worker_starting(self, environment: str, run: Run) -> None:
        """Kill the worker whose task waits for a release to become ready, once."""
        trap = self.trap(f"app.{environment}")
        trap.caught(explain=run.explain)
        self.kill_deployer(environment)
        trap.remove()

    def kill_worker_draining(self, environment: str, run: Run) -> None:
        """Kill the worker whose task switched to another release and waits for the old one's last request."""
        layout = self.layout(environment)
        before, old = layout.record().generation, layout.upstream()
        assert old is not None
        with socket.create_connection(old):
            wait_until(
                lambda: layout.record().generation > before, "it is switched", timeout=90, explain=run.explain
            )
            self.kill_deployer(environment)

    def kill_deployer(self, environment: str) -> None:
        """Kill the worker whose task changes this environment right now."""
        holder = json.loads(self.layout(environment).holder.read_bytes())
        self.airflow.kill_worker(holder["pid"])

    def move(self, port: int, environment: str = "production") -> None:
        """Let the service answer on another port there from its next deployment on."""
        for definition in self.definition["environments"]:
            if definition["name"] == environment:
                definition["target"]["local"]["port"] = port
        self._write_file()

    def layout(self, environment: str) -> Layout:
        """Return where the target keeps what runs there."""
        return Layout(root_of(self.airflow.home / "cd"), self.name, environment)

    @contextmanager
    def undecided(self) -> Iterator[None]:
        """Let the health checks come to no verdict until the end of the block."""
        (self.traps / "undecided").touch()
        yield
        (self.traps / "undecided").unlink()

    def expect_one_deployment(
        self, run: Run, text: str, environment: str = "production", *, generation: int = 1
    ) -> None:
        """Assert that this run's release runs there, once, and that nothing else is left of any attempt."""
        record = self.record(environment)
        assert record.current is not None
        assert record.generation == generation
        assert record.current.release.digest == run.xcom("package")["digest"]
        assert record.current.actor == f"{run.dag_id}/{run.run_id}"
        assert self.served(environment) == text
        told = [
            event["extra"]["generation"]
            for event in run.api.get("/assets/events", source_run_id=run.run_id)["asset_events"]
            if event["source_dag_id"] == run.dag_id and event["extra"].get("environment") == environment
        ]
        assert told == [generation]
        self.expect_nothing_left(environment)

    def expect_nothing_left(self, environment: str = "production") -> None:
        """Assert that one process serves, what can be gone back to is there, and no attempt left a trace."""
        data = self.airflow.home / "cd"
        record = self.record(environment)
        assert record.current is not None
        running = f"{self.name}.{environment}.{record.generation}"
        assert self.programs(environment) == {running, f"{self.name}.{environment}.front"}
        assert len(self.processes(environment)) == 1
        layout = self.layout(environment)
        with FileLock(layout.lease, timeout=0):
            pass
        deployed = [record.current, *record.previous]
        wanted = {layout.release(one.release.digest) for one in deployed}
        assert set(layout.releases.iterdir()) == wanted
        assert [folder.name for folder in layout.generations.iterdir()] == [str(record.generation)]
        assert [path for path in layout.folder.iterdir() if path.name.startswith((".", "tmp"))] == []
        assert [path for path in (data / "scratch").glob("*") if self.name in path.name] == []

    def programs(self, environment: str) -> set[str]:
        """Return what supervisord runs for this environment, whatever is written down about it."""
        supervisor = Supervisor(root_of(self.airflow.home / "cd"))
        known = {program["name"] for program in supervisor._api().getAllProcessInfo()}
        prefix = f"{self.name}.{environment}."
        return {name for name in known | set(supervisor.names(prefix)) if name.startswith(prefix)}

    def processes(self, environment: str) -> list[psutil.Process]:
        """Return the processes of this machine that a release of this service is."""
        wanted = {"CD_SERVICE": self.name, "CD_ENVIRONMENT": environment}
        found = []
        for process in psutil.process_iter():
            try:
                if wanted.items() <= process.environ().items():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _define(self, **changes: Any) -> dict[str, Any]:
        definition = super()._define(**changes)
        definition["build"].append(["python", "-c", _HELD_COMMAND, str(self.traps / "build")])
        unit = [["python", "-c", _HELD_COMMAND, str(self.traps / "test")], ["python", "-c", WRITE_REPORT]]
        definition["test"]["unit"]["commands"] = unit
        check = ["test", "!", "-e", str(self.traps / "undecided")]
        for environment in definition["environments"]:
            environment["target"]["local"]["drain"] = "60s"
            environment["target"]["local"]["env"]["TRAPS"] = str(self.traps)
            # Longer than a verdict may take on the worker: the task has to defer.
            environment["health"].append(
                {"command": check, "interval": "200ms", "healthy_after": 17, "failures": 100_000}
            )
            if self._asks:
                environment["approval"] = {}
        return definition
