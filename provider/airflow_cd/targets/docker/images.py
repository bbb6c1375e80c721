"""The images of releases on an engine: pulled by digest, kept while they can be gone back to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_cd.exceptions import ArtifactCorruptError, ArtifactError, ArtifactNotFoundError, TargetError

if TYPE_CHECKING:
    from airflow_cd.model.release import Release
    from airflow_cd.targets.docker.engine import Engine
    from airflow_cd.targets.docker.lease import EngineLease
    from airflow_cd.targets.record import Record

log = logging.getLogger(__name__)

_MISSING = ("manifest unknown", "not found", "name unknown")
_CHANGED = ("verification failed", "does not match", "unexpected")


class Images:
    """
    What is on the engine. A tag of ours protects a kept image from ``docker image prune``, and from other
    environments that clear away theirs; containers are made by digest, whatever any tag says.
    """

    def __init__(self, engine: Engine, lease: EngineLease) -> None:
        self._engine, self._lease = engine, lease
        self._prefix = f"cd-{hashlib.sha256(engine.label.encode()).hexdigest()[:12]}-"

    def need(self, release: Release) -> None:
        """
        Make sure that the engine has the release's image.

        :raises ArtifactNotFoundError: the registry does not have it
        :raises ArtifactCorruptError: what the registry sends is another image
        :raises ArtifactError: the registry does not answer, or refuses
        """
        if not self._is_here(release):
            self._pull(release)
        self._engine.client.images.get(release.pull_spec).tag(release.image, self._tag(release))

    def can_be_had(self, release: Release) -> bool:
        """Return whether the engine has the release's image, or gets it."""
        try:
            self.need(release)
        except ArtifactError as error:
            log.warning("%s is not there any more: %s", release.version, error)
            return False
        return True

    def need_front(self) -> None:
        """
        Make sure that the engine has the front's image.

        :raises TargetError: it cannot be had
        """
        from docker.errors import APIError, ImageNotFound

        front = self._engine.settings.front
        with suppress(ImageNotFound):
            self._engine.client.images.get(front)
            return
        log.info("Pulling %s", front)
        try:
            self._engine.client.images.pull(front)
        except APIError as error:
            raise TargetError(
                f"{self._engine.where}: the image {front!r} of the front cannot be had: {error.explanation}; "
                "name another by `front:`, with caddy and BusyBox in it"
            ) from error

    def prune(self, record: Record) -> None:
        """
        Let go of the images of releases that nobody can go back to.

        :param record: what runs now
        :raises DeployConflictError: the lease was lost; nothing was let go of
        """
        from docker.errors import DockerException

        if record.current is None:
            return
        kept = [record.current.release, *(deployed.release for deployed in record.previous)]
        unused = self._unused(kept)
        self._lease.check()
        self._protect(kept)
        for name in unused:
            with suppress(DockerException):  # another container uses it
                self._engine.client.images.remove(name)

    def _unused(self, kept: Sequence[Release]) -> list[str]:
        tags = {self._tag(release) for release in kept}
        return [
            name
            for repository in {release.image for release in kept if release.image}
            for image in self._engine.client.images.list(repository)
            for name in image.tags
            if (tag := name.rpartition(":")[2]).startswith(self._prefix) and tag not in tags
        ]

    def _protect(self, kept: Sequence[Release]) -> None:
        """Tag what is kept: a holder that lost its lease may have removed the tag of what it did not know."""
        from docker.errors import ImageNotFound

        for release in kept:
            with suppress(ImageNotFound):
                image = self._engine.client.images.get(release.pull_spec)
                if not any(name.endswith(f":{self._tag(release)}") for name in image.tags):
                    image.tag(release.image, self._tag(release))

    def _pull(self, release: Release) -> None:
        from docker.errors import APIError

        log.info("Pulling %s", release.pull_spec)
        repository, digest = str(release.image), release.digest
        try:
            events = list(self._engine.client.api.pull(repository, tag=digest, stream=True, decode=True))
            problem = next((str(event["error"]) for event in events if "error" in event), None)
        except APIError as error:
            problem = str(error.explanation or error)
        if problem is None:
            return
        # The engine tells what went wrong in words only.
        kind = ArtifactError
        if any(words in problem for words in _MISSING):
            kind = ArtifactNotFoundError
        elif any(words in problem for words in _CHANGED):
            kind = ArtifactCorruptError
        raise kind(f"{release.pull_spec} cannot be pulled: {problem}")

    def _is_here(self, release: Release) -> bool:
        from docker.errors import ImageNotFound

        try:
            self._engine.client.images.get(release.pull_spec)
        except ImageNotFound:
            return False
        return True

    def _tag(self, release: Release) -> str:
        return f"{self._prefix}{release.short}"
