"""How a release is made of a built tree: an archive of its files, or an image."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from airflow_cd.model.base import Frozen
from airflow_cd.model.fields import Engine, Env, RelativePath


class Archive(Frozen):
    """A reproducible archive of the files that match; ``**`` crosses folders."""

    include: Annotated[tuple[RelativePath, ...], Field(min_length=1)] = ("**",)
    exclude: tuple[RelativePath, ...] = ("**/__pycache__/**", "**/*.pyc", "**/.pytest_cache/**")


class Image(Frozen):
    """
    A container image, built by a Docker engine from the service's Dockerfile and pushed to a registry.

    :param repository: where it is pushed, with its registry, without a tag: ``registry.example/shop/hello``
    :param dockerfile: the Dockerfile, relative to ``context``
    :param context: folder of the source that is sent to the engine
    :param stage: the stage that is built; default: the last one
    :param args: values of the Dockerfile's ``ARG``; never secrets, they stay in the image
    :param engine: address of the engine that builds, as a runner has it
    :param conn_id: Airflow connection of type ``docker`` with the login of the registry
    """

    repository: Annotated[
        str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$")
    ]
    dockerfile: RelativePath = "Dockerfile"
    context: RelativePath = "."
    stage: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] | None = None
    args: Env = Field(default_factory=dict)
    engine: Engine | None = None
    conn_id: str | None = None


class Package(Frozen):
    """How a release is made: as an archive of files, or as an image."""

    archive: Archive = Archive()
    image: Image | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Package:
        if self.image is not None and "archive" in self.model_fields_set:
            raise ValueError("has both `archive` and `image`; a release is one of them, remove the other")
        return self
