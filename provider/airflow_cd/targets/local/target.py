"""Runs releases as processes of this machine, behind a front that never stops answering."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from airflow_cd.exceptions import DeployConflictError, TargetError
from airflow_cd.processes.disk import write_problem
from airflow_cd.processes.lease_holder import LeaseHolder, described
from airflow_cd.targets.local.instances import ProcessInstances
from airflow_cd.targets.local.layout import Layout, write_durably
from airflow_cd.targets.local.proxy import ProcessProxy
from airflow_cd.targets.local.supervision import Supervisor
from airflow_cd.targets.side_by_side import SideBySideTarget

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.base import Access
    from airflow_cd.targets.record import Record

_NAMED_WITHIN = 1.0  # seconds


def root_of(data_dir: Path) -> Path:
    """Return the local target's folder in the data folder."""
    return data_dir / "local"


def shutdown(root: Path) -> None:
    """End everything that runs below this folder: all services, their fronts and the supervisor."""
    Supervisor(root).shutdown()


class LocalTarget(SideBySideTarget):
    """
    One service in one environment on this machine; see :class:`airflow_cd.targets.base.Target`.

    The lease is a file lock, which the kernel takes from a holder that dies.
    """

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        self.service, self.environment = service, environment.name
        settings = environment.target.local
        assert settings is not None, "the environment's target is of this kind"
        self._settings, self._access = settings, access
        self.keep = settings.keep
        root = root_of(access.data_dir)
        self._layout = Layout(root, service, environment.name)
        self._supervisor = Supervisor(root)
        self._instances = ProcessInstances(
            self._supervisor, self._layout, service, environment.name, self._settings
        )
        address = (self._settings.host, self._settings.port)
        self._front = ProcessProxy(self._supervisor, self._layout, f"{self._instances.prefix}front", address)

    def record(self) -> Record:
        """Return what runs here."""
        return self._layout.record()

    def url(self) -> str | None:
        """Return where the service answers."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._settings.host, self._settings.host)
        return f"http://{host}:{self._settings.port}"

    def remove(self) -> None:
        """End the service in this environment and its front; files stay."""
        with self._leased("removal", "nothing"):
            for name in self._supervisor.names(self._instances.prefix):
                self._instances.remove(name)

    def _switch(self, old: Record, new: Record, release: Release) -> None:
        """Record and traffic switch by one rename of a link."""
        # What an attempt that was killed left running would be in the way; what serves is not touched.
        self._instances.end_others(old.generation, self._settings.drain)
        upstream = self._instances.start(release, new.generation)
        try:
            self._layout.write_generation(new, upstream)
        except OSError:
            self._instances.end(new.generation)
            raise
        self._layout.make_current(new.generation)

    def _converge(self, record: Record) -> Record:
        """Start what should run and does not, and clear away what a killed attempt left."""
        upstream = self._layout.upstream()
        if record.current is not None and not self._instances.alive(record.generation):
            port = upstream[1] if upstream else None
            self._instances.start(record.current.release, record.generation, port)
        self._finish(record)
        return record

    def _finish(self, record: Record) -> None:
        self._front.ensure_running()
        self._instances.end_others(record.generation, self._settings.drain)
        self._layout.prune(record)

    def _prepare(self, release: Release, store: ArtifactStore) -> None:
        """Unpack the release's archive, unless that was done before."""
        self._front.check_port()
        folder = self._layout.release(release.digest)
        if folder.exists():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._layout.folder, prefix=".", suffix=".tar.gz") as archive:
            store.get_file(release.digest, Path(archive.name))
            self._access.unpack(Path(archive.name), folder)

    def _is_restorable(self, release: Release) -> bool:
        return self._layout.release(release.digest).is_dir()

    @contextmanager
    def _leased(self, actor: str, what: str) -> Iterator[None]:
        """Keep everybody else away, and say of a disk that is full or read-only which one it is."""
        folder = self._layout.folder
        try:
            with self._alone(actor, what):
                yield
        except OSError as error:
            problem = write_problem(error, folder)
            raise TargetError(
                f"{self.service} in {self.environment}: {folder} cannot be written: {problem}"
            ) from error

    @contextmanager
    def _alone(self, actor: str, what: str) -> Iterator[None]:
        self._layout.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._layout.lease)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise DeployConflictError(
                f"{self.service} in {self.environment} is being deployed by another run: {self._holder()}"
            ) from error
        try:
            holder = LeaseHolder.of_this_process(actor, what).to_json()
            write_durably(self._layout.holder, holder.encode())
            yield
        finally:
            # Otherwise a refused process would read this name until the next holder has written its own.
            with suppress(OSError):
                self._layout.holder.unlink()
            lock.release()

    def _holder(self) -> str:
        """Return who holds the lease, waiting a moment for one that took it just now to write its name."""
        end = time.monotonic() + _NAMED_WITHIN
        while not self._layout.holder.exists() and time.monotonic() < end:
            time.sleep(0.01)
        try:
            return described(self._layout.holder.read_bytes())
        except FileNotFoundError:
            return described(None)
