"""Runs commands in containers of a Docker engine, local or remote."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import CommandError, CommandTimeoutError, EngineError, RunnerError
from airflow_cd.runners.lines import Lines
from airflow_cd.runners.workspace import (
    BASE_ENVIRONMENT,
    MOUNT,
    WORKSPACE,
    BoundedFile,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from airflow_cd.model.runner import DockerRunnerSettings as Settings

log = logging.getLogger(__name__)

_IN_MEMORY = 16 * 1024 * 1024


def upload(container: Container, folder: Path, user: str) -> None:
    """
    Put a copy of the folder's content into the container's workspace, and an empty home beside it.

    :param user: ``uid`` or ``uid:gid`` of who owns it there
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        pack(folder, file, user)  # type: ignore[arg-type, unused-ignore]
        file.seek(0)
        container.put_archive(MOUNT, file)


def download(container: Container, folder: Path) -> None:
    """Replace the folder's content by that of the container's workspace."""
    with tempfile.TemporaryFile(dir=folder.parent) as file:
        bounded = BoundedFile(file)
        for chunk in container.get_archive(WORKSPACE)[0]:
            bounded.write(chunk)
        file.seek(0)
        unpack(file, folder)


# On every container and volume of ours: when it may be removed, in seconds since 1970.
_UNTIL = "airflow-cd.runner.until"
_KEPT_SECONDS = 24 * 3600
# How a container ends that the engine or the kernel ended: nothing is known about its command then.
_INTERRUPTED = (137, 143, 255)


class JobContainers:
    """
    One container per command, by number, and the volume they share.

    :param name: of the job, as the engine takes it
    """

    def __init__(self, client: DockerClient, settings: Settings, name: str) -> None:
        self._client, self._settings, self._name = client, settings, name

    def need_image(self) -> None:
        """
        Make sure that the engine has the image.

        :raises RunnerError: it cannot be had
        """
        from docker.errors import DockerException, ImageNotFound

        images, image = self._client.images, self._settings.image
        try:
            if self._settings.pull == "missing":
                with suppress(ImageNotFound):
                    images.get(image)
                    return
            log.info("Pulling %s", image)
            images.pull(image)
        except DockerException as error:
            remedy = "correct `runner.docker.image`, or give the registry's login by `conn_id`"
            raise RunnerError(f"the image {image!r} cannot be had: {error}; {remedy}") from error

    def found(self, number: int) -> Container | None:
        """Return the container in which a killed try of the same task runs this command, or ran it."""
        container = self._get(number)
        if container is None or container.status in ("created", "removing", "dead"):
            return None
        if container.status == "exited" and container.attrs["State"]["ExitCode"] in _INTERRUPTED:
            return None
        return container

    def create(self, number: int, argv: Sequence[str], env: Mapping[str, str]) -> Container:
        """Make the container of a command, not started yet; that of the first one has a new volume."""
        if number == 0:
            self.remove()  # a volume that is left would bring another try's files into the workspace
            self._client.volumes.create(self._name, labels=self._labels())
        elif left := self._get(number):
            left.remove(force=True)
        settings = self._settings
        return self._client.containers.create(
            settings.image,
            entrypoint=list(argv[:1]),
            command=list(argv[1:]),
            name=f"{self._name}-{number}",
            labels=self._labels(),
            environment={**BASE_ENVIRONMENT, **env},
            user=settings.user,
            working_dir=WORKSPACE,
            volumes={self._name: {"bind": MOUNT, "mode": "rw"}},
            network_mode=settings.network,
            mem_limit=settings.memory,
            memswap_limit=settings.memory,
            nano_cpus=int(settings.cpus * 1e9) if settings.cpus else None,
            pids_limit=settings.processes,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            init=True,
        )

    def start(self, container: Container, argv: Sequence[str]) -> None:
        """
        Start it.

        :raises CommandError: the image has no such program (127), or cannot run it (126)
        """
        from docker.errors import APIError

        try:
            container.start()
        except APIError as error:
            container.reload()
            code = container.attrs["State"]["ExitCode"]
            if code not in (126, 127):
                raise
            reason = f"{argv[0]!r} cannot be run in {self._settings.image}: {error.explanation}"
            raise CommandError(argv, code, [reason]) from error

    def remove(self) -> None:
        """
        Remove all of the job.

        :raises docker.errors.DockerException: something is left
        """
        from docker.errors import NotFound

        mine = {"name": f"^/{self._name}-"}
        for container in self._client.containers.list(all=True, ignore_removed=True, filters=mine):
            with suppress(NotFound):
                container.remove(force=True)
        with suppress(NotFound):
            self._client.volumes.get(self._name).remove()

    def remove_abandoned(self) -> None:
        """Remove what killed workers left of any job, and nobody came back for within a day."""
        ours: dict[str, Any] = {"filters": {"label": _UNTIL}}
        for container in self._client.containers.list(all=True, ignore_removed=True, **ours):
            if float(container.labels[_UNTIL]) < time.time():
                with suppress(Exception):
                    container.remove(force=True)
        for volume in self._client.volumes.list(**ours):
            if float(volume.attrs["Labels"][_UNTIL]) < time.time():
                with suppress(Exception):
                    volume.remove()

    def _get(self, number: int) -> Container | None:
        from docker.errors import NotFound

        try:
            return self._client.containers.get(f"{self._name}-{number}")
        except NotFound:
            return None

    def _labels(self) -> dict[str, str]:
        return {_UNTIL: f"{time.time() + _KEPT_SECONDS:.0f}"}


_END_SECONDS = 60


class DockerRunner:
    """
    One container per command; those of a job share a volume with the workspace and the home folder.

    The workspace is copied in and out by the engine's own interface, so the engine may be on any machine.
    Names are made of the job's: where a worker was killed, the next try finds the command running, or done,
    and goes on from there. What is left behind is removed after a day, by the next job.

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
