"""A Docker engine, and what one service in one environment is called there."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_cd.exceptions import EngineError, TargetError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from airflow_cd.model.target import DockerTargetSettings as Settings

# On everything of ours: "<service>/<environment>".
TARGET = "airflow-cd.target"
GENERATION = "airflow-cd.generation"

# What the engine answers of a container that is not there any more, or is being removed.
_GOING = (404, 409)


class Engine:
    """
    Connects when it is first asked something.

    Names have dots between their parts, which names of services and environments cannot have.

    :param connect: returns a client
    """

    def __init__(
        self, service: str, environment: str, settings: Settings, connect: Callable[[], DockerClient]
    ) -> None:
        self.settings, self._connect = settings, connect
        self.name = f"cd.{service}.{environment}"
        self.label = f"{service}/{environment}"
        self.where = f"{service} in {environment}"

    @cached_property
    def client(self) -> DockerClient:
        """
        The client of the engine.

        :raises docker.errors.DockerException: it does not answer
        """
        return self._connect()

    def labels(self, **labels: str) -> dict[str, str]:
        """Return the labels of something of this service in this environment."""
        return {TARGET: self.label, **{f"airflow-cd.{name}": value for name, value in labels.items()}}

    def container(self, name: str) -> Container | None:
        """Return the container of this name, if there is one."""
        from docker.errors import NotFound

        try:
            return self.client.containers.get(name)
        except NotFound:
            return None

    @contextmanager
    def reported(self) -> Iterator[None]:
        """
        Say of the engine's and the connection's errors what they are about.

        :raises TargetError:
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            yield
        except (DockerException, EngineError, RequestException, ConnectionError) as error:
            engine = self.settings.engine or "the Docker engine"
            raise TargetError(f"{self.where}: {engine} failed: {error}") from error


def end(container: Container) -> None:
    """Remove exactly this container and its anonymous volumes, unless another process was faster."""
    from docker.errors import APIError

    try:
        container.remove(force=True, v=True)
    except APIError as error:
        if error.status_code not in _GOING:
            raise


def read_folder(container: Container, folder: str) -> dict[str, bytes]:
    """Return the files below a folder of a container, which may be stopped, by their paths in it."""
    from docker.errors import NotFound

    try:
        chunks, _ = container.get_archive(f"{folder}/.")
    except NotFound:
        return {}
    files = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        for member in tar:
            if (content := tar.extractfile(member)) is not None:
                files[member.name.removeprefix("./")] = content.read()
    return files


def write_files(container: Container, folder: str, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """
    Write files into a folder of a container, which may be stopped. A file is not there at once, or whole.

    :param files: path below the folder -> content; folders are made as needed
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for parent in sorted({name.rpartition("/")[0] for name in files} - {""}):
            info = tarfile.TarInfo(parent)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    container.put_archive(folder, buffer.getvalue())
