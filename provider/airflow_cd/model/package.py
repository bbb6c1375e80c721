"""How a release is made of a built tree: an archive of its files, or an image."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from airflow_cd.model.base import Engine, Env, Frozen, RelativePath

# As in https://pkg.go.dev/github.com/distribution/reference, where the registry may be left out: not here.
_REGISTRY = r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:[0-9]+)?"
_PATH = r"(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)+"


class ArchiveSettings(Frozen):
    """
    A reproducible archive of the files that match; ``**`` crosses folders.

    :param include: patterns of the files in the archive
    :param exclude: patterns of the files that stay out of it
    """

    include: Annotated[tuple[RelativePath, ...], Field(min_length=1)] = ("**",)
    exclude: tuple[RelativePath, ...] = ("**/__pycache__/**", "**/*.pyc", "**/.pytest_cache/**")


def _with_registry(repository: str) -> str:
    if len(repository) > 200 or not re.fullmatch(f"{_REGISTRY}{_PATH}", repository):
        raise ValueError(
            "is not an image's repository with its registry and without a tag; "
            "write for example registry.example/shop/hello"
        )
    return repository


class ImageSettings(Frozen):
    """
    A container image, built by a Docker engine from the service's Dockerfile and pushed to a registry.

    :param repository: where it is pushed, with its registry, without a tag: ``registry.example/shop/hello``
    :param dockerfile: the Dockerfile, relative to ``context``
    :param context: folder of the source that is sent to the engine
    :param stage: the stage that is built; default: the last one
    :param args: values of the Dockerfile's ``ARG``; never secrets, they stay in the image
    :param engine: address of the engine that builds, as a runner has it
    :param conn_id: Airflow connection of type ``docker`` with the login of the registry
    :param registry_url: where workers reach the registry, if not by the name that the engine knows it by
    """

    repository: Annotated[str, AfterValidator(_with_registry)]
    dockerfile: RelativePath = "Dockerfile"
    context: RelativePath = "."
    stage: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] | None = None
    args: Env = Field(default_factory=dict)
    engine: Engine | None = None
    conn_id: str | None = None
    registry_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+$")] | None = None


class PackageSettings(Frozen):
    """
    How a release is made: as an archive of files, or as an image.

    :param archive: an archive of files
    :param image: an image that a Docker engine builds; replaces ``archive``
    """

    archive: ArchiveSettings = ArchiveSettings.model_construct()
    image: ImageSettings | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> PackageSettings:
        if self.image is not None and "archive" in self.model_fields_set:
            raise ValueError("has both `archive` and `image`; a release is one of them, remove the other")
        return self

    @property
    def kind(self) -> str:
        """Return what a release is: ``archive`` or ``image``."""
        return "archive" if self.image is None else "image"
