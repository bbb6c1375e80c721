"""Runs commands in containers of a Docker engine, wherever that is."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.exceptions import CommandError, CommandTimeoutError, EngineError, RunnerError
from airflow_cd.runners.containers import JobContainers
from airflow_cd.runners.lines import Lines
from airflow_cd.runners.transfer import download, upload

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from airflow_cd.model.runner import DockerRunnerSettings as Settings

log = logging.getLogger(__name__)

_END_SECONDS = 60


class DockerRunner:
    """
    One container per command; those of a job share a volume with the workspace and the home folder.

    The workspace is copied in and out by the engine's own interface, so the engine may be on any machine.
    Names are made of the job's: where a worker was killed, the next try finds the command running, or done,
    and goes on from there. What nobody comes back for is removed after a day, by whoever runs a job then.

    :param settings: image and limits
    :param connect: returns a client of the engine; called when a job begins
    """

    def __init__(self, settings: Settings, connect: Callable[[], DockerClient]) -> None:
        self._settings, self._connect = settings, connect
        self._containers: JobContainers | None = None
        self._next = 0
        self._current: Container | None = None

    @contextmanager
    def job(self, name: str, folder: Path) -> Iterator[None]:
        """Open the engine, and bring the workspace back when the commands are done or one failed."""
        with _reported():
            client = self._connect()
        with closing(client):
            self._containers = containers = JobContainers(client, self._settings, name_on_engine(name))
            self._next, self._current = 0, None
            with _reported():
                containers.remove_abandoned()
                containers.need_image()
            try:
                yield
            except CommandError:
                self._bring_back(folder)
                raise
            else:
                self._bring_back(folder)
            finally:
                with suppress(Exception):  # what cannot be removed now is removed when its time is over
                    containers.remove()
                self._containers = None

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
        assert self._containers is not None, "commands run inside a job"
        output = Lines(on_line)
        with _reported():
            container = self._found() or self._started(argv, cwd, env)
            self._next += 1
            in_time = self._follow(container, output, timeout)
        state = container.attrs["State"]
        if not in_time:
            raise CommandTimeoutError(argv, timeout, output.tail)
        if state.get("OOMKilled"):
            limit = f"it used more memory than `memory: {self._settings.memory}` of its runner allows"
            raise CommandError(argv, state["ExitCode"], [*output.tail, limit])
        if state["ExitCode"]:
            raise CommandError(argv, state["ExitCode"], output.tail)

    def kill(self) -> None:
        """End the running command and everything it started."""
        if self._current is not None:
            with suppress(Exception):  # it ended meanwhile, or the engine is gone and the command with it
                self._current.kill()

    def _found(self) -> Container | None:
        assert self._containers is not None
        container = self._containers.found(self._next)
        if container is not None:
            log.info("Going on with container %s, which an earlier try of this task started", container.name)
            self._current = container
        return container

    def _started(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Container:
        assert self._containers is not None
        container = self._containers.create(self._next, argv, env)
        if self._next == 0:
            upload(container, cwd, self._settings.user)
        self._current = container
        self._containers.start(container, argv)
        return container

    def _follow(self, container: Container, output: Lines, timeout: float) -> bool:
        """Hand on the output until the command ended; return whether that was before the timeout."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        watch = threading.Timer(timeout, end)
        watch.start()
        try:
            shown = 0
            for chunk in container.logs(stream=True, follow=True):
                output.feed(chunk)
                shown += len(chunk)
            container.wait(timeout=_END_SECONDS)
            # Docker may end such a stream with the container, before its last words are in the log.
            for chunk in _after(shown, container.logs(stream=True, follow=False)):
                output.feed(chunk)
        finally:
            watch.cancel()
            output.close()
        container.reload()
        return not late.is_set()

    def _bring_back(self, folder: Path) -> None:
        if self._current is not None:
            with _reported():
                download(self._current, folder)


def _after(start: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what comes after the first ``start`` bytes."""
    for chunk in chunks:
        yield chunk[start:]
        start = max(start - len(chunk), 0)


def name_on_engine(job: str) -> str:
    """Return what a job's volume is called, and what its containers' names begin with."""
    return f"cd-{hashlib.sha256(job.encode()).hexdigest()[:24]}"


@contextmanager
def _reported() -> Iterator[None]:
    """Say of the engine's and the connection's errors what they are about."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, EngineError, RequestException) as error:
        raise RunnerError(f"the Docker engine failed: {error}") from error
