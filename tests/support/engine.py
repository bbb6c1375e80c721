"""The Docker engine of the tests, where there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.requirements import NEEDS_ENGINE, require

from airflow_cd.runners.docker import name_on_engine

# Both are official images; where there is no Docker Hub, an image of that name will do.
PYTHON = "python:3.11-slim"
FRONT = "caddy:2"
_LEFT: set[str] = set()


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine that ``DOCKER_HOST`` names, which has the image :data:`PYTHON`."""
    require(os.environ.get("DOCKER_HOST"), NEEDS_ENGINE)
    import docker

    client = docker.from_env()
    try:
        client.images.get(PYTHON)
    except docker.errors.ImageNotFound:
        client.images.pull(PYTHON)
    yield client
    for repository in _LEFT:
        for image in client.images.list(repository):
            with suppress(docker.errors.APIError):  # another owner's, or a pod's that has not ended yet
                client.images.remove(image.id, force=True)
    client.close()


def remove_later(repository: str) -> None:
    """Remove a repository's images at the end: the pods that use them take a while to end."""
    _LEFT.add(repository)


def need_front_image(engine: Any) -> None:
    """
    Make sure that the engine has an image ``caddy:2``, as the front of a Docker target uses.

    It is made of BusyBox and the Caddy that the local target uses, where there is none: the tests then need
    nobody's registry.
    """
    import docker
    from tests.support.images import tar_of

    try:
        engine.images.get(FRONT)
        return
    except docker.errors.ImageNotFound:
        pass
    caddy = Path(sys.executable).with_name("caddy").read_bytes()
    dockerfile = b"FROM busybox:1.36\nCOPY caddy /usr/bin/caddy\n"
    context = tar_of({"Dockerfile": dockerfile, "caddy": caddy})
    engine.images.build(fileobj=context, custom_context=True, tag=FRONT, rm=True)


def remove_all(engine: Any, service: str, repository: str) -> None:
    """Remove containers, network, volume and images of a service that a Docker target ran."""
    from docker.errors import APIError, NotFound

    named = {"filters": {"name": f"cd.{service}."}}
    for container in engine.containers.list(all=True, ignore_removed=True, **named):
        with suppress(NotFound):  # it was on its way out
            container.remove(force=True, v=True)
    for network in engine.networks.list(**named):
        network.remove()
    for volume in engine.volumes.list(**named):
        volume.remove()
    for image in engine.images.list(repository):
        with suppress(APIError):  # another one was built on it
            engine.images.remove(image.id, force=True)


def left_of(engine: Any, job: str) -> set[str]:
    """Return the names of all containers and volumes of a runner's job."""
    named = {"filters": {"name": name_on_engine(job)}}
    containers = engine.containers.list(all=True, ignore_removed=True, **named)
    return {one.name for one in [*containers, *engine.volumes.list(**named)]}
