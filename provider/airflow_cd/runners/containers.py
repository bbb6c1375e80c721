"""The containers and the volume of one job on a Docker engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import CommandError, RunnerError
from airflow_cd.runners.workspace import BASE_ENVIRONMENT, MOUNT, WORKSPACE

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from airflow_cd.model.runner import DockerRunnerSettings as Settings

log = logging.getLogger(__name__)

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
        """Make sure that the engine has the image. :raises RunnerError: it cannot be had"""
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
        """Start it. :raises CommandError: the image has no such program (127), or may not run it (126)"""
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
        """Remove all of the job. :raises docker.errors.DockerException: something is left"""
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
