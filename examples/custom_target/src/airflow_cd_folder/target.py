"""Unpacks releases into folders, and flips a symbolic link."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from airflow_cd.exceptions import DeployConflictError, NotReadyError
from airflow_cd.targets.record import Record
from airflow_cd.targets.side_by_side import SideBySideTarget
from airflow_cd_folder.settings import FolderSettings

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.base import Access

_LEASE_SECONDS = 30.0


class FolderTarget(SideBySideTarget):
    """
    One service in one environment::

        releases/<digest>/            what was unpacked
        generations/<n>/record.json   what the target remembers
        generations/<n>/site          -> ../../releases/<digest>
        current                       -> generations/<n>

    Renaming the link ``current`` changes the record and what is served at once, so that a process that is
    killed at any point leaves either the old state or the new one.
    """

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        settings = environment.target.settings
        assert isinstance(settings, FolderSettings)
        self.service, self.environment = service, environment.name
        self.keep = settings.keep
        self._settings, self._access = settings, access
        self._folder = Path(settings.path)

    def record(self) -> Record:
        """Return what runs here."""
        try:
            content = (self._folder / "current" / "record.json").read_bytes()
        except FileNotFoundError:
            return Record()
        return Record.model_validate_json(content)

    def url(self) -> str | None:
        """Return where the service answers."""
        return self._settings.url

    @contextmanager
    def _leased(self, actor: str, what: str) -> Iterator[None]:
        # The kernel releases the lock of a process that dies. A deployment takes seconds, so that one that
        # is under way is waited for; what it changed is then seen by the generation of the record.
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / "lease.lock")
        try:
            lock.acquire(timeout=_LEASE_SECONDS)
        except Timeout as error:
            raise DeployConflictError(
                f"{self._where}: another deployment holds {lock.lock_file} for more than {_LEASE_SECONDS:g} s"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _prepare(self, release: Release, store: ArtifactStore) -> None:
        folder = self._release(release.digest)
        if folder.exists():
            return
        folder.parent.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=self._folder) as scratch:
            archive = Path(scratch) / "release.tar.gz"
            store.get_file(release.digest, archive)
            self._access.unpack(archive, folder)

    def _is_restorable(self, release: Release) -> bool:
        return self._release(release.digest).is_dir()

    def _switch(self, old: Record, new: Record, release: Release) -> None:
        folder = self._release(release.digest)
        if not (folder / self._settings.ready).exists():
            raise NotReadyError(f"{self._where}: {release.version} has no file {self._settings.ready}")
        generation = self._folder / "generations" / str(new.generation)
        # What a killed process left of this generation was never served.
        shutil.rmtree(generation, ignore_errors=True)
        generation.mkdir(parents=True)
        (generation / "record.json").write_text(new.model_dump_json())
        (generation / "site").symlink_to(Path("../../releases", folder.name))
        link = self._folder / ".current"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("generations", str(new.generation)))
        os.replace(link, self._folder / "current")

    def _converge(self, record: Record) -> Record:
        self._finish(record)
        return record

    def _finish(self, record: Record) -> None:
        """Delete what cannot be rolled back to. A request that began earlier can still use the old link."""
        used = [*([record.current] if record.current else []), *record.previous]
        self._keep("releases", {self._release(one.release.digest).name for one in used})
        self._keep("generations", {str(record.generation), str(record.generation - 1)})

    def _keep(self, what: str, names: set[str]) -> None:
        for folder in (self._folder / what).iterdir():
            if folder.name not in names:
                shutil.rmtree(folder, ignore_errors=True)

    def _release(self, digest: str) -> Path:
        return self._folder / "releases" / digest.removeprefix("sha256:")
