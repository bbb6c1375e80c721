"""A Buildbot of its own, in a virtual environment of its own: what a dedicated CI server takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from harness.component import Component, clean_environment
from harness.waiting import wait_until

_CACHE = Path(__file__).parents[1] / ".bench" / "buildbot"
_REQUIREMENTS = ("buildbot>=4,<5", "buildbot-worker>=4,<5", "setuptools<81")

_CONFIG = """
from buildbot.plugins import changes, schedulers, steps, util, worker

def shell(name, command):
    return steps.ShellCommand(name=name, command=command, haltOnFailure=True)

factory = util.BuildFactory([
    steps.Git(repourl={repository!r}, mode="incremental"),
    shell("build", ["true"]),
    shell("test", ["true"]),
    shell("package", ["tar", "-czf", "release.tar.gz", "src"]),
    shell("staging.deploy", ["true"]),
    shell("staging.health", ["true"]),
    shell("production.deploy", ["true"]),
    shell("production.health", ["true"]),
    shell("done", ["touch", util.Interpolate({done!r} + "/%(prop:got_revision)s")]),
])
BuildmasterConfig = {{
    "protocols": {{"null": {{}}}},
    "workers": [worker.LocalWorker("local")],
    "change_source": [
        changes.GitPoller({repository!r}, branches=["main"], pollInterval=1, pollAtLaunch=True),
    ],
    "schedulers": [schedulers.SingleBranchScheduler(
        name="main",
        change_filter=util.ChangeFilter(branch="main"),
        treeStableTimer=None,
        builderNames=["all"],
    )],
    "builders": [util.BuilderConfig(name="all", workernames=["local"], factory=factory)],
    "buildbotNetUsageData": None,
    "db": {{"db_url": "sqlite:///state.sqlite"}},
}}
"""


class Buildbot:
    """
    A running master with one local worker; a context manager.

    :param folder: an empty folder
    :param repository: what it polls, at one second; there is a commit already
    """

    def __init__(self, folder: Path, repository: str) -> None:
        self._folder, self._done = folder / "master", folder / "done"
        self._config = _CONFIG.format(repository=repository, done=str(self._done))
        self._component: Component | None = None

    def __enter__(self) -> Buildbot:
        """Install it, if that was not done before, and start it."""
        self._done.mkdir(parents=True)
        command = str(_installed() / "buildbot")
        subprocess.run([command, "create-master", str(self._folder)], check=True, capture_output=True)
        (self._folder / "master.cfg").write_text(self._config)
        argv = [command, "start", "--nodaemon", str(self._folder)]
        self._component = Component("buildbot", argv, clean_environment({}), self._folder / "out.log")
        self._component.start()
        # What is there at its first poll is no change to Buildbot; what comes later is.
        self._wait(lambda: "processing changes" in self._log(), "Buildbot polls")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._component is not None:
            self._component.stop()

    def wait_for(self, sha: str) -> float:
        """Wait until this commit went through all steps, and return when, in seconds since the epoch."""
        file = self._done / sha
        self._wait(file.exists, f"Buildbot built {sha[:8]}")
        return file.stat().st_mtime

    def _wait(self, probe: Callable[[], bool], what: str) -> None:
        wait_until(probe, what, timeout=120, every=0.05, explain=lambda: self._log()[-3000:])

    def _log(self) -> str:
        file = self._folder / "twistd.log"
        return file.read_text() if file.exists() else ""


def _installed() -> Path:
    """Return the folder of its commands."""
    commands = _CACHE / "bin"
    if not (commands / "buildbot").exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(_CACHE)], check=True)
        python = str(commands / "python")
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *_REQUIREMENTS], check=True)
    return commands
