"""Running a service's commands from a task: output to its log as it comes, ended when the task is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_cd.model.service import Service
    from airflow_cd.runners.base import Runner


class CommandsMixin:
    """Adds :meth:`run_commands` to an operator, and ends the running command when Airflow kills the task."""

    log: Any
    _runner: Runner | None = None

    def run_commands(
        self,
        service: Service,
        commands: Sequence[Sequence[str]],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout: timedelta,
    ) -> None:
        """
        Run the commands one after the other; ``timeout`` holds for all of them together.

        :raises CommandError: a command failed; those after it did not run
        """
        from airflow_cd.hooks.adapters import open_runner

        self._runner = open_runner(service)
        deadline = time.monotonic() + timeout.total_seconds()
        for argv in commands:
            self.log.info("$ %s", " ".join(argv))
            started = time.monotonic()
            left = max(deadline - started, 0.001)
            self._runner.run(argv, cwd=cwd, env=env, timeout=left, on_line=self._log_line)
            self.log.info("  done in %.1f s", time.monotonic() - started)

    def _log_line(self, line: str) -> None:
        self.log.info("  %s", line)

    def on_kill(self) -> None:
        """End the command that runs; Airflow calls this when the task is killed or marked."""
        if self._runner is not None:
            self._runner.kill()
