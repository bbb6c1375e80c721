"""Runs a service's commands from a task."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_cd.model.service import Service
    from airflow_cd.runners.base import Runner


# A person reads a fraction of it; without an end, a loop that prints fills the disk the logs are on.
_LONGEST_LOG = 20 * 1024 * 1024


@dataclass
class CommandRunner:
    """
    Runs a service's commands for a task: output to its log as it comes, ended when the task is.

    The operator calls :meth:`kill` in its ``on_kill``, which Airflow calls when the task is killed or marked.

    :param service: whose commands
    """

    service: Service
    log: Logger
    _runner: Runner | None = field(default=None, init=False)

    def run(
        self,
        context: Context,
        commands: Sequence[Sequence[str]],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout: timedelta,
    ) -> None:
        """
        Run the commands one after the other; ``timeout`` holds for all of them together.

        :raises CommandError: a command failed; those after it did not run
        :raises RunnerError: the runner cannot be used
        """
        from airflow.configuration import conf

        from airflow_cd.releases.adapters import open_runner
        from airflow_cd.runners.lines import LimitedLines

        longest = conf.getint("cd", "command_log_bytes", fallback=_LONGEST_LOG)
        if not commands:
            return
        self._runner = open_runner(self.service)
        deadline = time.monotonic() + timeout.total_seconds()
        with self._runner.job(_job_name(context, self.service, commands, env), cwd):
            for argv in commands:
                self.log.info("$ %s", " ".join(argv))
                started = time.monotonic()
                left = max(deadline - started, 0.001)
                lines = LimitedLines(self._log_line, longest)
                try:
                    self._runner.run(argv, cwd=cwd, env=env, timeout=left, on_line=lines.add)
                finally:
                    lines.close()
                self.log.info("  done in %.1f s", time.monotonic() - started)

    def kill(self) -> None:
        """End the command that runs."""
        if self._runner is not None:
            self._runner.kill()

    def _log_line(self, line: str) -> None:
        self.log.info("  %s", line)


def _job_name(
    context: Context, service: Service, commands: Sequence[Sequence[str]], env: Mapping[str, str]
) -> str:
    """Return a name that all tries of a task share, as long as they run the same commands."""
    ti: Any = context["ti"]
    identity = [getattr(ti, name, "") for name in ("dag_id", "run_id", "task_id", "map_index")]
    runner = service.model_dump(mode="json", include={"name", "runner"})
    return json.dumps([identity, runner, [list(argv) for argv in commands], dict(env)], sort_keys=True)
