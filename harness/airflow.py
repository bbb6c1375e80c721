"""A whole Airflow of one's own: prepared in a folder, started, watched, and stopped without a trace."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psutil
from filelock import FileLock

from harness.api import AirflowApi
from harness.component import Component, clean_environment, kill_tree
from harness.ports import LOOPBACK, any_free, is_listening
from harness.waiting import wait_until

# The commands, and what /monitor/health calls them.
COMPONENTS = ("scheduler", "dag-processor", "api-server", "triggerer")
_COMMANDS = {
    # Nobody asks the log servers: all components share one file system.
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "api-server": ["api-server"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
# Processes of tasks are forks: what is imported before is not imported at each task's start.
_LOCAL_SETTINGS = "from airflow_cd.preload import preload\n\npreload()\n"
USERS = {"admin": "admin", "alice": "user", "bob": "user"}


class AirflowFailedError(Exception):
    """Raised when Airflow cannot be prepared or started; the message holds the end of the log."""


class RunningAirflow:
    """
    Scheduler, DAG processor, API server and triggerer, each a process group of its own.

    A context manager: entering starts it and waits until it is healthy, leaving stops it.

    :param home: the scratch ``AIRFLOW_HOME``; made when it does not exist
    :param dags_folder: where the DAG files are; default: ``dags`` in ``home``
    :param users: user name -> role; each gets a password of its own, see :meth:`password`
    :param extra_config: more variables of its environment, as ``AIRFLOW__SECTION__OPTION``; they win
    :param api_port: the API server's port; default: a free one
    :param sql_alchemy_conn: an empty metadata database; default: a SQLite file in ``home``
    :param template: a SQLite file to copy instead of migrating an empty database. When it does not exist
        it is made, once, however many processes ask for it at the same time.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags_folder: Path | None = None,
        users: Mapping[str, str] = USERS,
        extra_config: Mapping[str, str] | None = None,
        api_port: int | None = None,
        sql_alchemy_conn: str | None = None,
        template: Path | None = None,
    ) -> None:
        self.home = home.absolute()
        self.dags_folder = (dags_folder or self.home / "dags").absolute()
        self.ports = Ports.choose(api_port)
        self.url = f"http://127.0.0.1:{self.ports.api}"
        self._passwords = {name: secrets.token_urlsafe(9) for name in users}
        self._template = None if sql_alchemy_conn else template
        self._is_migrated = False
        settings = airflow_settings(self.home, self.dags_folder, self.ports, users, sql_alchemy_conn)
        self.env = clean_environment({**settings, **(extra_config or {})})
        self.components = {name: self._component(name) for name in COMPONENTS}
        self._apis: dict[str, AirflowApi] = {}

    def __enter__(self) -> RunningAirflow:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def logs(self) -> Path:
        """Return the folder with one log file per component; those of tasks are in ``logs`` beside it."""
        return self.home / "components"

    @property
    def api(self) -> AirflowApi:
        """Return the REST API as the user ``admin``."""
        return self.as_user("admin")

    def as_user(self, name: str) -> AirflowApi:
        """Return the REST API as this user."""
        if name not in self._apis:
            self._apis[name] = self.new_session(name)
        return self._apis[name]

    def new_session(self, name: str) -> AirflowApi:
        """Return the REST API as this user, with a connection of its own; the caller closes it."""
        return AirflowApi(self.url, name, self._passwords[name], self.components["scheduler"].log)

    def password(self, user: str) -> str:
        """Return the generated password of a user."""
        return self._passwords[user]

    def run(self, *arguments: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one ``airflow`` command of this Airflow to its end and return what it printed."""
        argv = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(
            argv,
            env={**self.env, **env},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def prepare(self) -> None:
        """
        Write the folder and the metadata database. Doing it again changes nothing.

        :raises AirflowFailedError: the database cannot be made
        """
        for folder in (self.home, self.dags_folder, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        settings = self.home / "config" / "airflow_local_settings.py"
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(_LOCAL_SETTINGS)
        file = passwords_file(self.home)
        file.touch(mode=0o600)
        file.write_text(json.dumps(self._passwords))
        if self._is_migrated or (self.home / "airflow.db").exists():
            return
        if self._template is None:
            self._migrate()
        else:
            copy_or_make(self._template, self.home / "airflow.db", self._migrate)
        self._is_migrated = True

    def start(self, timeout: float = 120) -> None:
        """
        Prepare if need be, start all components, and wait until all are healthy.

        :raises AirflowFailedError: a component died
        :raises NotInTimeError: they are not healthy after ``timeout`` seconds
        """
        self.prepare()
        for component in self.components.values():
            if component.pid is None:
                component.start()
        self.wait_until_healthy(timeout=timeout)

    def stop(self, grace: float = 10) -> None:
        """End everything this object started, and nothing else. Doing it again does nothing."""
        for api in self._apis.values():
            api.close()
        self._apis.clear()
        # The API server last: tasks report their end to it.
        for name in ("dag-processor", "triggerer", "scheduler", "api-server"):
            self.components[name].stop(grace)

    def restart(self, name: str, timeout: float = 120) -> None:
        """Stop a component (if it still runs), start it, and wait until it is healthy again."""
        self.components[name].stop()
        since = datetime.now(timezone.utc)
        self.components[name].start()
        self.wait_until_healthy(since=since, only=name, timeout=timeout)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a component and everything it started; start it again with :meth:`restart`."""
        self.components[name].send(number)

    def kill_worker(self, pid: int) -> None:
        """
        Kill the worker that executes a task, the task and all it started, as at the death of their machine.

        The scheduler learns of it by the missing heartbeat of the task.

        :param pid: the task's process, or one that it started
        :raises ValueError: this process is none of a worker's
        """
        process = psutil.Process(pid)
        scheduler = self.components["scheduler"].pid
        for member in [process, *process.parents()]:
            if member.ppid() == scheduler:
                kill_tree(member)
                return
        raise ValueError(f"process {pid} ({process.name()}) belongs to no worker of this Airflow")

    def expect_alive(self, only: str | None = None) -> None:
        """
        Go on when the components run.

        :param only: the one that matters; default: all of them
        :raises AirflowFailedError: one ended by itself
        """
        for name, component in self.components.items():
            if component.exit_code is not None and only in (None, name):
                raise AirflowFailedError(
                    f"{name} ended with exit code {component.exit_code}; its log is {component.log}:\n"
                    f"{component.tail()}"
                )

    def wait_until_healthy(
        self, *, since: datetime | None = None, only: str | None = None, timeout: float = 120
    ) -> None:
        """
        Wait for heartbeats.

        :param since: heartbeats before this moment do not count
        :param only: the component that matters; default: all of them
        :raises AirflowFailedError: a component died
        :raises NotInTimeError: they are not healthy after ``timeout`` seconds
        """
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            wait_until(
                lambda: self._are_healthy(client, since, only),
                "Airflow is healthy",
                timeout=timeout,
                explain=self._tails,
            )
            # The first request of a task builds all versions of the execution API, and nothing is answered
            # meanwhile: seconds of CPU, which on a loaded machine are longer than a client waits.
            client.get("/execution/health", timeout=timeout)

    def wait_until_noted(self, run_id: str, task_id: str, times: int = 1, timeout: float = 30) -> None:
        """
        Wait until the scheduler has noticed that a parked or deferred task's process ended.

        Airflow 3.3.2 takes a task that is resumed before that for lost, and retries it. Nobody is that fast
        but a program; what the scheduler has noticed shows in its log alone.

        :param times: how often the task's process must have ended, over all its tries
        :raises NotInTimeError: it was not noticed before the deadline
        """
        log = self.components["scheduler"].log
        wait_until(
            lambda: times_noted(log, run_id, task_id) >= times,
            f"the end of {task_id} is noted by the scheduler",
            timeout=timeout,
        )

    def left_listening(self) -> list[int]:
        """Return the ports of this Airflow that something still listens on."""
        ports = self.ports
        wanted = (ports.api, ports.worker_logs, ports.trigger_logs, ports.scheduler_health)
        return [port for port in wanted if is_listening(port)]

    def _component(self, name: str) -> Component:
        argv = [sys.executable, "-m", "airflow", *_COMMANDS[name]]
        return Component(name, argv, self.env, self.logs / f"{name}.log")

    def _migrate(self) -> None:
        done = self.run("db", "migrate", timeout=300)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise AirflowFailedError(f"`airflow db migrate` ended with exit code {done.returncode}:\n{tail}")

    def _are_healthy(self, client: httpx.Client, since: datetime | None, only: str | None) -> bool:
        self.expect_alive(only)
        return are_healthy(client, [only] if only else COMPONENTS, since)

    def _tails(self) -> str:
        return "\n".join(f"--- {name}\n{component.tail(8)}" for name, component in self.components.items())


@dataclass(frozen=True)
class Ports:
    """Every port one Airflow may listen on, so that several of them run side by side."""

    api: int
    worker_logs: int
    trigger_logs: int
    scheduler_health: int

    @classmethod
    def choose(cls, api: int | None = None) -> Ports:
        """Return free ports. :param api: the API server's, when it is chosen already"""
        free = any_free(4)
        return cls(api or free[0], *free[1:])


def airflow_settings(
    home: Path, dags_folder: Path, ports: Ports, users: Mapping[str, str], sql_alchemy_conn: str | None
) -> dict[str, str]:
    """
    Return the settings of a small, fast Airflow for one machine.

    :param users: user name -> role (``admin``, ``op``, ``user`` or ``viewer``)
    :param sql_alchemy_conn: the metadata database; ``None`` is a SQLite file in ``home``
    """
    url = f"http://{LOOPBACK}:{ports.api}"
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": dags_folder,
            "executor": "LocalExecutor",
            "load_examples": False,
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in users.items()),
            "simple_auth_manager_passwords_file": passwords_file(home),
            # Tasks talk to this server: it has to move together with the port.
            "execution_api_server_url": f"{url}/execution/",
            "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        },
        # One writer at a time, so on a busy machine others wait: longer than the five seconds of the default.
        "database": {
            "sql_alchemy_conn": sql_alchemy_conn or f"sqlite:///{home / 'airflow.db'}?timeout=60",
        },
        "api": {
            "host": LOOPBACK,
            "port": ports.api,
            "base_url": url,
            "workers": 1,
            "secret_key": secrets.token_urlsafe(32),
        },
        "api_auth": {"jwt_secret": secrets.token_urlsafe(48)},
        "logging": {
            "base_log_folder": home / "logs",
            "worker_log_server_port": ports.worker_logs,
            "trigger_log_server_port": ports.trigger_logs,
        },
        "scheduler": {
            # Nearly all of the time between two tasks is this sleep (1 s by default).
            "scheduler_idle_sleep_time": 0.1,
            "enable_health_check": False,
            "scheduler_health_check_server_port": ports.scheduler_health,
            "trigger_timeout_check_interval": 1,
        },
        # A supervisor that misses the end of its task by a hair notices it one interval later (by default
        # 5 s). A deferred task that is back before then looks lost to the scheduler, and is retried.
        "workers": {"min_heartbeat_interval": 1},
        "dag_processor": {
            "refresh_interval": 1,
            "bundle_refresh_check_interval": 1,
            "min_file_process_interval": 2,
            "parsing_processes": 1,
        },
        "triggerer": {"shared_stream_cohort_grace_period": 1},
    }
    return _as_environment(home, sections)


def passwords_file(home: Path) -> Path:
    """Return where SimpleAuthManager keeps its users' passwords: a JSON object."""
    return home / "passwords.json"


def _as_environment(home: Path, sections: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    settings = {
        f"AIRFLOW__{section}__{option}".upper(): str(value)
        for section, options in sections.items()
        for option, value in options.items()
    }
    return {"AIRFLOW_HOME": str(home), **settings}


def are_healthy(client: httpx.Client, names: Iterable[str], since: datetime | None) -> bool:
    """
    Return whether the API server answers, and says that these components are healthy.

    :param since: heartbeats before this moment do not count
    """
    try:
        response = client.get("/api/v2/monitor/health")
        report: dict[str, Any] = response.raise_for_status().json()
    except httpx.HTTPError:
        return False
    return all(_beats(report, name.replace("-", "_"), since) for name in names)


def times_noted(log: Path, run_id: str, task_id: str) -> int:
    """Return how often the scheduler with this log noticed that a process of the task ended."""
    lines, place = log.read_text(errors="replace").splitlines(), f"task_id='{task_id}', run_id='{run_id}'"
    return sum("Received executor event" in line and place in line for line in lines)


def _beats(report: Mapping[str, Any], name: str, since: datetime | None) -> bool:
    if name == "api_server":  # it answered
        return True
    state = report.get(name) or {}
    if state.get("status") != "healthy":
        return False
    return since is None or datetime.fromisoformat(state[f"latest_{name}_heartbeat"]) > since


def copy_or_make(template: Path, file: Path, make: Callable[[], None]) -> None:
    """
    Copy a template to ``file``; when there is none yet, make ``file``, and keep a copy as the template.

    However many processes ask at the same time, one makes it, and the others wait for it.

    :param make: makes ``file``
    """
    template.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{template}.lock"):
        if not template.exists():
            make()
            unfinished = template.with_suffix(".new")
            shutil.copyfile(file, unfinished)
            unfinished.replace(template)
            return
    shutil.copyfile(template, file)
