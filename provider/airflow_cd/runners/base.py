"""What runs build and test commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Runner(Protocol):
    """Runs argv lists, never a shell string, with a clean environment."""

    def job(self, name: str, folder: Path) -> AbstractContextManager[None]:
        """
        Prepare for the commands of one task, which run inside the block; its end removes what was prepared.

        What the commands did to the folder is there afterwards, also when one of them failed.

        :param name: the same for every try of a task: one whose worker was killed may be gone on with
        :param folder: the workspace
        :raises RunnerError: what runs commands cannot be used
        """

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout: float,
        on_line: Callable[[str], None],
    ) -> None:
        """
        Run one command to its end, handing each line of its output to ``on_line`` as it comes.

        :param cwd: the job's folder
        :param env: added to the runner's clean base environment; the caller's own is not inherited
        :param timeout: seconds until the command and everything it started is ended
        :raises CommandError: non-zero exit code, or the program does not exist (exit code 127)
        :raises CommandTimeoutError: it ran longer than ``timeout``
        :raises RunnerError: what runs commands failed, and not the command
        """

    def kill(self) -> None:
        """End the running command and everything it started; called when Airflow kills the task."""
