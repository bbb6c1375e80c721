"""The topology of docker-compose.yaml as processes of this machine: Celery workers, PostgreSQL and Redis."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

from harness.airflow import AirflowFailedError, RunningAirflow
from harness.component import Component
from harness.waiting import wait_until

WORKERS = ("worker-1", "worker-2")


# What workers of docker-compose.yaml do not have either.
_NOT_FOR_WORKERS = (
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
)


class CeleryAirflow(RunningAirflow):
    """
    A running Airflow whose tasks are executed by Celery workers.

    :param sql_alchemy_conn: an empty database on a PostgreSQL server
    :param broker: URL of a Redis server; a queue of our own is used there
    :param slots: tasks at a time, per worker
    :param settings: of :class:`RunningAirflow`
    """

    def __init__(
        self, home: Path, *, sql_alchemy_conn: str, broker: str, slots: int, **settings: Any
    ) -> None:
        celery = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(slots * len(WORKERS)),
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": broker,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(slots),
            "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
            "AIRFLOW__OPERATORS__DEFAULT_QUEUE": f"cd-{secrets.token_hex(4)}",
        }
        extra = {**celery, **settings.pop("extra_config", {})}
        super().__init__(home, sql_alchemy_conn=sql_alchemy_conn, extra_config=extra, **settings)
        self.workers = {name: self._worker(name) for name in WORKERS}

    def start(self, timeout: float = 240) -> None:
        """Start all components and workers and wait until they are ready."""
        super().start(timeout)
        for worker in self.workers.values():
            if worker.pid is None:
                worker.start()
        wait_until(self._are_ready, "the workers are ready", timeout=timeout, explain=self._ends)

    def stop(self, grace: float = 10) -> None:
        """End everything this object started, workers first: a task that ends reports to the API server."""
        for worker in self.workers.values():
            worker.stop(grace)
        super().stop(grace)

    def _worker(self, name: str) -> Component:
        host = f"celery@{name}-{self.ports.api}"
        files = ["--pid", str(self.home / f"{name}.pid")]
        argv = ["celery", "worker", "--celery-hostname", host, "--skip-serve-logs", *files]
        env = {key: value for key, value in self.env.items() if key not in _NOT_FOR_WORKERS}
        return Component(name, [sys.executable, "-m", "airflow", *argv], env, self.logs / f"{name}.log")

    def _are_ready(self) -> bool:
        for name, worker in self.workers.items():
            if worker.exit_code is not None:
                raise AirflowFailedError(f"{name} ended with exit code {worker.exit_code}:\n{worker.tail()}")
        return all(" ready." in worker.log.read_text(errors="replace") for worker in self.workers.values())

    def _ends(self) -> str:
        return "\n".join(f"--- {name}\n{worker.tail(8)}" for name, worker in self.workers.items())
