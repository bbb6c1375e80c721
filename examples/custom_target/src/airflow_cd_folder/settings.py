"""The keys under ``target: {folder: ...}``. DAG files are parsed with it: nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from airflow_cd.model.base import RelativePath
from airflow_cd.model.target_settings import TargetSettings


class FolderSettings(TargetSettings):
    """
    A folder on the machine Airflow's workers run on.

    :param path: absolute path; the root of the web server is ``current/site`` below it
    :param url: where the web server answers
    :param ready: file that a release must have
    :param keep: how many previous releases can be rolled back to
    """

    adapter: ClassVar[str] = "airflow_cd_folder.target:FolderTarget"
    address_key: ClassVar[str] = "path"

    path: Annotated[str, StringConstraints(pattern=r"^/.")]
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S*[^/\s]$")]
    ready: RelativePath = "index.html"
    keep: int = Field(5, ge=1)

    @property
    def address(self) -> tuple[str, ...]:
        """Return the folder: two environments cannot share it."""
        return "folder", self.path

    @property
    def described(self) -> str:
        """Return where the service answers, for people."""
        return self.url
