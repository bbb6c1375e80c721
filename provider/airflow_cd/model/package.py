"""How a release is made of a built tree."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airflow_cd.model.base import Frozen
from airflow_cd.model.fields import RelativePath


class Archive(Frozen):
    """A reproducible archive of the files that match; ``**`` crosses folders."""

    include: Annotated[tuple[RelativePath, ...], Field(min_length=1)] = ("**",)
    exclude: tuple[RelativePath, ...] = ("**/__pycache__/**", "**/*.pyc", "**/.pytest_cache/**")


class Package(Frozen):
    """How a release is made."""

    archive: Archive = Archive()
