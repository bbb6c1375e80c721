"""A target under test, with an artifact store and releases to deploy to it."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from airflow_cd.model.environment import Environment
from airflow_cd.model.release import Release
from airflow_cd.packaging.archive import unpack
from airflow_cd.stores.base import ArtifactStore
from airflow_cd.stores.registry import open_store
from airflow_cd.targets.base import Access, Target
from airflow_cd.targets.registry import open_target
from airflow_cd.testing.releases import release_of


class TargetPlace(ABC):
    """
    What :class:`airflow_cd.testing.target_conformance.TargetConformance` needs of a kind of target.

    The target keeps two previous releases: set its ``keep``, or what corresponds to it, to 2.

    :cvar kind: as in a services file
    :cvar service: name of the service
    :cvar strategy: of the environment, as in a services file
    :cvar not_ready: pattern of what :class:`airflow_cd.exceptions.NotReadyError` says of a broken release
    :param folder: an empty folder of the test
    :param settings: of the target, besides those that :meth:`settings` returns
    """

    kind = ""
    service = "hello"
    strategy: Any = None
    not_ready = ""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.data, self.folder = folder / "data", folder
        self.store: ArtifactStore = open_store((folder / "store").as_uri())
        self.made = 0
        self.reopen(**settings)

    def reopen(self, **settings: Any) -> None:
        """Define the environment again, with these settings besides the usual ones."""
        target = {self.kind: {**self.settings(), **settings}}
        definition = {"name": "production", "target": target, "strategy": self.strategy}
        self.environment = Environment.model_validate(definition)
        self.target: Target = open_target(self.service, self.environment, self.access())

    def access(self) -> Access:
        """Return what the target can use of this machine."""
        return Access(self.data, unpack)

    def release_of(self, digest: str, text: str) -> Release:
        """
        Return a release of another commit than any before, for :meth:`release`.

        :param digest: of its content
        :param text: what it answers with; its version, too
        """
        self.made += 1
        return release_of(digest, service=self.service, version=text, subject=text, sha=f"{self.made:040x}")

    def deploy(self, release: Release, expected: int | None = None) -> int:
        """
        Deploy, and return the generation of the record.

        :param expected: the generation on which the decision is based; default: what it is
        """
        if expected is None:
            expected = self.target.record().generation
        return self.target.deploy(release, self.store, expected=expected, actor="test").generation

    def deploying_process(
        self, release: Release, expected: int, actor: str = "other", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Return a process that is ready to deploy, and does once it reads a line (``rival.py``)."""
        argv = [
            *(sys.executable, "-m", "airflow_cd.testing.rival"),
            *(self.service, self.environment.model_dump_json(), release.model_dump_json()),
            *(self.store.url, str(self.data), str(expected), actor),
        ]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        return process

    def served(self, path: str = "/") -> str:
        """Return what the service answers."""
        return httpx.get(f"{self.target.url()}{path}", trust_env=False).text

    def graceful_release(self, text: str) -> Release:
        """
        Return a new release that answers with this text, and loses no request while it is replaced.

        Where a release is a program, it has to announce the end of a kept connection.
        """
        return self.release(text)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the target's settings, as in a services file."""

    @abstractmethod
    def release(self, text: str) -> Release:
        """Return a new release that answers with this text, its content in the store or the registry."""

    @abstractmethod
    def broken_release(self, text: str) -> Release:
        """Return a new release that never becomes ready, see ``not_ready``."""

    @abstractmethod
    def instances(self) -> list[str]:
        """Return the names of what runs releases of this service, a proxy in front of them left out."""

    @abstractmethod
    def kept(self) -> set[str]:
        """Return the digests of the releases that can be rolled back to, and of what runs."""

    @abstractmethod
    def lose_sources(self) -> None:
        """Delete every release from where it is fetched, such as the artifact store."""

    @abstractmethod
    def spoil(self, release: Release) -> None:
        """Change the content of a release where it is fetched from."""

    @abstractmethod
    def close(self) -> None:
        """End everything that the place and its target started."""
