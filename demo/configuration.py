"""The configuration of a scratch Airflow, as environment variables."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.ports import LOOPBACK, any_free

# What is taken over from the caller: nothing of Airflow's, git's or Python's settings.
_INHERITED = (
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "KUBECONFIG",
)


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


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of this demonstration: the interpreter's programs come first."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


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
