"""The Docker engine of the tests, where there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.requirements import require

from airflow_cd.runners.docker import name_on_engine

# Both are official images; where there is no Docker Hub, an image of that name will do.
PYTHON = "python:3.11-slim"


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine that ``DOCKER_HOST`` names, which has the image :data:`PYTHON`."""
    require(os.environ.get("DOCKER_HOST"), "needs a Docker engine: set DOCKER_HOST")
    import docker

    client = docker.from_env()
    try:
        client.images.get(PYTHON)
    except docker.errors.ImageNotFound:
        client.images.pull(PYTHON)
    yield client
    client.close()


def left_of(engine: Any, job: str) -> set[str]:
    """Return the names of all containers and volumes of a runner's job."""
    named = {"filters": {"name": name_on_engine(job)}}
    return {one.name for one in [*engine.containers.list(all=True, **named), *engine.volumes.list(**named)]}
