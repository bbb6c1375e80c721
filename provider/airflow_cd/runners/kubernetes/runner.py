"""Runs commands as Jobs of a Kubernetes cluster, wherever that is."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.exceptions import CommandError, CommandTimeoutError, RunnerError
from airflow_cd.kubernetes.errors import reported
from airflow_cd.runners.kubernetes.job_manifest import Command
from airflow_cd.runners.kubernetes.jobs import End, Jobs, Pod, wait_for
from airflow_cd.runners.kubernetes.logs import PodLog, follow
from airflow_cd.runners.kubernetes.workspace_volume import LAST, WorkspaceVolume
from airflow_cd.runners.lines import Lines
from airflow_cd.runners.workspace import pack, unpack

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from airflow_cd.model.runner import KubernetesRunnerSettings as Settings

log = logging.getLogger(__name__)

_ENDS_SECONDS = 10


class KubernetesRunner:
    """
    One Job per command; workspace and home folder go from pod to pod.

    They travel through the API server, so the cluster may be anywhere, and no shared volume is needed.
    Names are made of the job's: where a worker was killed, the next try finds the command running, or done,
    and goes on from there. What is left behind is removed after a day, by the next job.

    :param settings: namespace, image and limits
    :param connect: returns a client of the cluster; called when a job begins
    """

    def __init__(self, settings: Settings, connect: Callable[[], ApiClient]) -> None:
        self._settings, self._connect = settings, connect
        self._client: ApiClient | None = None
        self._jobs: Jobs | None = None
        self._next = self._begun = 0
        self._pod: Pod | None = None
        self._over = threading.Event()

    @contextmanager
    def job(self, name: str, folder: Path) -> Iterator[None]:
        """Open the cluster, and bring the workspace back when the commands are done or one failed."""
        with self._reported():
            client = self._connect()
        with closing(client):
            self._client, self._jobs = client, Jobs(client, self._settings, name_in_cluster(name))
            self._next, self._pod = 0, None
            self._over.clear()
            try:
                with self._reported():
                    self._jobs.remove_abandoned()
                    self._begun = self._jobs.resume()
                yield
            except CommandError:
                self._bring_back(folder)
                raise
            else:
                self._bring_back(folder)
            finally:
                with suppress(Exception):  # what cannot be removed now is removed when its time is over
                    self._jobs.remove()
                self._client = self._jobs = None

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout: float,
        on_line: Callable[[str], None],
    ) -> None:
        """Run one command to its end; see :class:`airflow_cd.runners.base.Runner`."""
        output = Lines(on_line)
        command = Command(self._next, argv, env, timeout)
        with self._reported():
            if self._next < self._begun:
                self._go_on()
            else:
                self._start(command, cwd)
            self._next += 1
            self._wait_until_begun(command)
            end, in_time = self._follow(command, output)
        if not in_time:
            raise CommandTimeoutError(argv, timeout, output.tail)
        if end.out_of_memory:
            raise CommandError(argv, end.code, [*output.tail, self._memory_problem()])
        if end.code:
            raise CommandError(argv, end.code, output.tail)

    def kill(self) -> None:
        """End the running command and everything it started."""
        self._over.set()
        if self._jobs is not None:
            with suppress(Exception):  # it ended meanwhile, or the cluster is gone
                self._jobs.end()

    def _go_on(self) -> None:
        assert self._jobs is not None, "commands run inside a job"
        self._pod = self._jobs.pod(self._next)
        if self._pod is None:
            raise RunnerError("the pod of a command that an earlier try of this task started was deleted")
        log.info("Going on with pod %s, which an earlier try of this task started", self._pod.name)

    def _start(self, command: Command, cwd: Path) -> None:
        """Make a pod, and put the workspace into it: the folder's, or that of the command before."""
        assert self._jobs is not None, "commands run inside a job"
        before = self._pod
        self._jobs.create(command)
        with tempfile.TemporaryFile(dir=cwd.parent) as file:
            if before is None:
                pack(cwd, file, self._settings.user, last=LAST, plain=True)
            else:
                held = self._volume(before, command.number - 1)
                held.fetch(file, "workspace", "home", LAST)
                # Its room may be what the next one waits for.
                held.let_go()
            self._pod = wait_for(self._jobs, self._settings, command.number, lambda pod: pod.waits)
            self._volume(self._pod, command.number).fill(file)

    def _wait_until_begun(self, command: Command) -> None:
        assert self._jobs is not None

        def begun(pod: Pod) -> bool:
            pod.need_program(command.argv, self._settings.image)
            return pod.begun

        wait_for(self._jobs, self._settings, command.number, begun)

    def _follow(self, command: Command, output: Lines) -> tuple[End, bool]:
        """Hand on the output until the command ended; return how, and whether that was before the timeout."""
        assert self._jobs is not None and self._client is not None and self._pod is not None
        from kubernetes.client import CoreV1Api

        late = threading.Event()
        watch = threading.Timer(command.timeout, self._end_late, [command.number, self._pod, late])
        core = CoreV1Api(self._client)
        words = PodLog(core, self._settings.namespace, self._pod.name, output.feed)
        watch.start()
        try:
            end = follow(self._jobs, words, command.number, self._over.is_set)
        finally:
            watch.cancel()
            output.close()
        return end, not late.is_set()

    def _end_late(self, number: int, pod: Pod, late: threading.Event) -> None:
        """End a command whose time is over, and leave what it did; called in a thread."""
        late.set()
        jobs, done = self._jobs, threading.Event()
        if jobs is None:
            return
        with suppress(Exception):
            self._volume(pod, number).end_command()
            for _ in range(_ENDS_SECONDS):
                now = jobs.pod(number)
                if now is None or now.end is not None:
                    return
                done.wait(1)
        self._over.set()
        with suppress(Exception):
            jobs.end()

    def _bring_back(self, folder: Path) -> None:
        if self._pod is None:
            return
        if self._over.is_set():
            log.warning("The command's pod was removed to end it; what it did to the workspace is lost")
            return
        with self._reported(), tempfile.TemporaryFile(dir=folder.parent) as file:
            self._volume(self._pod, self._next - 1).fetch(file, "workspace")
            unpack(file, folder)

    def _volume(self, pod: Pod, number: int) -> WorkspaceVolume:
        jobs = self._jobs
        assert self._client is not None and jobs is not None
        return WorkspaceVolume(self._client, self._settings.namespace, pod, lambda: jobs.pod(number))

    def _memory_problem(self) -> str:
        if self._settings.memory is None:
            return "it used more memory than its node or the namespace allows; set `memory` of its runner"
        return f"it used more memory than `memory: {self._settings.memory}` of its runner allows"

    def _reported(self) -> AbstractContextManager[None]:
        return reported(self._settings.namespace)


def name_in_cluster(job: str) -> str:
    """Return what the names of a job's Jobs begin with."""
    return f"cd-{hashlib.sha256(job.encode()).hexdigest()[:24]}"
