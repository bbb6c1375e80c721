"""Runs releases as containers of a Docker engine, behind a front that never stops answering."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_cd.exceptions import DeployConflictError, NotReadyError, TargetError
from airflow_cd.targets.docker.attempt import Attempt
from airflow_cd.targets.docker.engine import Engine, end
from airflow_cd.targets.docker.images import Images
from airflow_cd.targets.docker.instances import ContainerInstances
from airflow_cd.targets.docker.lease import EngineLease
from airflow_cd.targets.docker.proxy import ContainerProxy
from airflow_cd.targets.side_by_side import SideBySideTarget

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.base import Access
    from airflow_cd.targets.record import Record

log = logging.getLogger(__name__)

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class DockerTarget(SideBySideTarget):
    """
    One service in one environment on a Docker engine; see :class:`airflow_cd.targets.base.Target`.

    Everything is done by the engine's interface, so the engine may be on any machine.
    """

    def __init__(self, service: str, environment: Environment, access: Access) -> None:
        settings = environment.target.docker
        assert settings is not None, "the environment's target is of this kind"
        self.service, self.environment, self.keep = service, environment.name, settings.keep
        self._settings = settings
        self._engine = Engine(
            service,
            environment.name,
            settings,
            lambda: access.client_factory("docker")(settings.engine, settings.conn_id),
        )
        identity = {"CD_SERVICE": service, "CD_ENVIRONMENT": environment.name}
        self._lease = EngineLease(self._engine)
        self._front = ContainerProxy(self._engine, self._lease)
        self._images = Images(self._engine, self._lease)
        self._instances = ContainerInstances(self._engine, self._lease, identity, access.secret)

    def record(self) -> Record:
        """
        Return what runs here.

        :raises TargetError: the engine does not answer
        """
        with self._engine.reported():
            return self._front.record()

    def url(self) -> str | None:
        """Return where the service answers, as seen from Airflow."""
        if self._settings.url is not None:
            return self._settings.url
        machine = urlsplit(self._settings.engine or "").hostname
        host = self._settings.host
        if host in _EVERYWHERE:
            host = machine or _EVERYWHERE[host]
        return f"http://{f'[{host}]' if ':' in host and '[' not in host else host}:{self._settings.port}"

    def remove(self) -> None:
        """End the service in this environment, and forget what ran."""
        with self._leased("removal", "nothing"):
            self._instances.end_all()
            self._front.remove()

    @contextmanager
    def _leased(self, actor: str, what: str) -> Iterator[None]:
        with self._engine.reported():
            self._images.need_front()
            with self._lease.held(actor, what):
                yield

    def _prepare(self, release: Release, store: ArtifactStore) -> None:
        """The image comes from its registry; the front's port is there before anything starts."""
        if release.image is None:
            raise TargetError(f"{release.version} is no image; {self._engine.where} runs images only")
        self._front.ensure_running()
        self._images.need(release)

    def _is_restorable(self, release: Release) -> bool:
        return self._images.can_be_had(release)

    def _switch(self, old: Record, new: Record, release: Release) -> None:
        turn = self._front.take_turn(old)
        attempt, probe = Attempt(new.generation, turn.token), self._front.probe()
        # What an attempt that was killed left running would be in the way; what serves is not touched.
        self._instances.end_others(lambda: turn.current, probe)
        try:
            container = self._instances.start(release, attempt, probe)
        except NotReadyError:
            if old.generation == 0:
                self._front.remove()
            raise
        try:
            self._lease.check()
            # Should the answer to this be lost, nobody knows which of the two serves: the next attempt does.
            self._front.make_current(attempt, new)
        except DeployConflictError:
            end(container)
            raise

    def _converge(self, record: Record) -> Record:
        current, probe = self._front.take_turn(record).current, self._front.probe()
        if record.current is not None and current is not None and not self._instances.alive(current):
            self._images.need(record.current.release)
            self._instances.start_again(record.current.release, current, probe)
        self._front.prune()
        self._finish(record)
        return record

    def _finish(self, record: Record) -> None:
        try:
            self._instances.end_others(lambda: self._front.current(record), self._front.probe())
            self._images.prune(record)
        except DeployConflictError:
            log.warning("The lease was lost after the switch; the next deployment clears away")
