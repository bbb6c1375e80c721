"""Starting, watching, draining and ending the containers of a release."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_cd.exceptions import DeployConflictError, NotReadyError
from airflow_cd.targets.docker.engine import GENERATION, TARGET, end, write_files

if TYPE_CHECKING:
    from docker.models.containers import Container

    from airflow_cd.model.release import Release
    from airflow_cd.targets.docker.attempt import Attempt
    from airflow_cd.targets.docker.engine import Engine
    from airflow_cd.targets.docker.lease import EngineLease
    from airflow_cd.targets.docker.proxy import Probe

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_LOG_LINES = 20


class ContainerInstances:
    """
    The containers of one service in one environment.

    :param lease: that its holder checks before what it cannot take back
    :param identity: environment variables of each instance, besides those of its release
    :param secret: returns the password of a connection
    """

    def __init__(
        self, engine: Engine, lease: EngineLease, identity: dict[str, str], secret: Callable[[str], str]
    ) -> None:
        self._engine, self._lease, self._settings = engine, lease, engine.settings
        self._identity, self._secret = identity, secret

    def start(self, release: Release, attempt: Attempt, probe: Probe) -> Container:
        """
        Start a container of this attempt's own, and return it once it is ready.

        The engine restarts it by itself from then on, not before: what crashes at once is seen to.

        :raises NotReadyError: it did not become ready; it was removed again
        :raises DeployConflictError: the lease was lost; it was removed again
        """
        self._lease.check()
        container = self._create(release, attempt)
        try:
            # Not a moment beside what another holder runs: some releases change their database at the start.
            self._lease.check()
            self._run_until_ready(container, release, attempt, probe)
        except Exception:
            with suppress(Exception):  # what went wrong first is what is reported
                end(container)
            raise
        return container

    def start_again(self, release: Release, attempt: Attempt, probe: Probe) -> None:
        """
        Start what should run and does not.

        Another holder may have started the same container in the meantime, and count on it: so it stays,
        whether it becomes ready or not.

        :raises NotReadyError: it did not become ready
        :raises DeployConflictError: the lease was lost
        """
        container = self._found(attempt)
        self._lease.check()
        if container is not None and container.status == "created":
            # Its creator may have been killed before it added networks and secrets. Without force: should
            # another holder start it just now, it stays.
            container.remove(v=True)
            container = None
        container = container or self._create(release, attempt)
        try:
            self._lease.check()
        except DeployConflictError:
            if container.status == "created":
                container.remove(v=True)
            raise
        self._run_until_ready(container, release, attempt, probe)

    def alive(self, attempt: Attempt) -> bool:
        """Tell whether the attempt's container runs."""
        container = self._found(attempt)
        return container is not None and container.status == "running"

    def end_others(self, current: Callable[[], Attempt | None], probe: Probe) -> None:
        """
        Drain and end every container but one: the one before, and what killed attempts left.

        What was there while the lease was held is of this holder or an earlier one; so nothing is ended that
        a later holder started, however late this goes on.

        :param current: returns whose container stays
        :raises DeployConflictError: the lease was lost; nothing was ended
        """
        from docker.errors import NotFound

        found, kept = self.all(), current()
        self._lease.check()
        for container in found:
            if kept is not None and container.name == self._name(kept):
                continue
            with suppress(NotFound):  # another holder was faster
                self._drain(container, probe)
                container.stop(timeout=int(self._settings.stop_timeout.total_seconds()))
            end(container)
            log.info("Ended the container of generation %s", container.labels[GENERATION])

    def end_all(self) -> None:
        """
        End every container, without waiting for requests.

        :raises DeployConflictError: the lease was lost; nothing was ended
        """
        found = self.all()
        self._lease.check()
        for container in found:
            end(container)

    def all(self) -> list[Container]:
        """Return the containers of all generations, running or not."""
        filters = {"label": [f"{TARGET}={self._engine.label}", GENERATION]}
        return list(self._engine.client.containers.list(all=True, filters=filters, ignore_removed=True))

    def _name(self, attempt: Attempt) -> str:
        return f"{self._engine.name}.{attempt.name}"

    def _found(self, attempt: Attempt) -> Container | None:
        return self._engine.container(self._name(attempt))

    def _run_until_ready(
        self, container: Container, release: Release, attempt: Attempt, probe: Probe
    ) -> None:
        started = time.monotonic()
        self._run(container)
        self._await_ready(container, attempt, probe, started)
        container.update(restart_policy={"Name": self._settings.restart})
        log.info("%s is ready after %.1f s", release.version, time.monotonic() - started)

    def _create(self, release: Release, attempt: Attempt) -> Container:
        settings, client = self._settings, self._engine.client
        endpoint = client.api.create_endpoint_config(aliases=[attempt.alias])
        container = client.containers.create(
            release.pull_spec,
            command=list(settings.command) if settings.command else None,
            name=self._name(attempt),
            labels=self._engine.labels(
                generation=str(attempt.generation),
                version=release.version,
                digest=release.digest,
                revision=release.revision.sha,
            ),
            environment={**settings.env, **self._identity, **self._own(release)},
            user=settings.user,
            network=self._engine.name,
            networking_config={self._engine.name: endpoint},
            volumes=self._volumes(),
            init=settings.init,
            mem_limit=settings.memory,
            memswap_limit=settings.memory,
            nano_cpus=int(settings.cpus * 1e9) if settings.cpus else None,
            security_opt=["no-new-privileges"],
        )
        try:
            for network in settings.networks:
                client.networks.get(network).connect(container)
            if secrets := {f"run/secrets/{name}": self._secret(of) for name, of in settings.secrets.items()}:
                # As Docker's own secrets are: readable by whatever user the image has.
                write_files(container, "/", {name: text.encode() for name, text in secrets.items()}, 0o444)
        except Exception:
            end(container)
            raise
        return container

    def _volumes(self) -> dict[str, dict[str, str]]:
        modes = {True: "ro", False: "rw"}
        return {
            one.source: {"bind": one.target, "mode": modes[one.read_only]} for one in self._settings.volumes
        }

    def _own(self, release: Release) -> dict[str, str]:
        return {
            "PORT": str(self._settings.container_port),
            "HOST": "0.0.0.0",
            "CD_RELEASE": release.digest,
            "CD_REVISION": release.revision.sha,
            "CD_VERSION": release.version,
        }

    def _run(self, container: Container) -> None:
        from docker.errors import APIError

        log.info("Starting container %s", container.name)
        try:
            container.start()
        except APIError as error:
            raise NotReadyError(f"{self._engine.where}: it cannot be started: {error.explanation}") from error

    def _await_ready(self, container: Container, attempt: Attempt, probe: Probe, started: float) -> None:
        allowed = self._settings.start_timeout.total_seconds()
        answered = False
        while True:
            answer = probe.status(attempt.alias, self._settings.container_port, self._path)
            # Asked after the answer: what answered and then ended is not ready.
            container.reload()
            state = container.attrs["State"]
            # One that was restarted has crashed once already, whatever it does now.
            if not state["Running"] or container.attrs["RestartCount"]:
                why = "it used more memory than `memory:` allows" if state.get("OOMKilled") else "it ended"
                raise self._not_ready(container, f"{why} with exit code {state['ExitCode']}")
            health = (state.get("Health") or {}).get("Status")
            if health == "unhealthy":
                raise self._not_ready(container, "its HEALTHCHECK says that it is unhealthy")
            missing = self._missing(health, answer)
            if missing is None and answered:
                return
            # Twice in a row: what answers once may be on its way out.
            answered = missing is None
            if missing and time.monotonic() - started > allowed:
                raise self._not_ready(container, f"{missing} within {allowed:g} s")
            time.sleep(_POLL_SECONDS)

    @property
    def _path(self) -> str:
        return self._settings.ready or "/"

    def _missing(self, health: str | None, answer: int | None) -> str | None:
        """Return what is not there yet. Without `ready:`, whatever it answers will do."""
        if health == "starting":
            return "its HEALTHCHECK did not say that it is healthy"
        if answer is None:
            where = f"port {self._settings.container_port} (PORT, on all addresses)"
            return f"it did not answer to GET {self._path} on {where}"
        if self._settings.ready is not None and not 200 <= answer < 400:
            return f"{self._path} answered {answer}"
        return None

    def _not_ready(self, container: Container, why: str) -> NotReadyError:
        said = container.logs(tail=_LOG_LINES).decode(errors="replace").rstrip()
        return NotReadyError(
            f"{self._engine.where}: the new release did not become ready: {why}. "
            f"What ran before still serves. It said last:\n{said or '(nothing)'}"
        )

    def _drain(self, container: Container, probe: Probe) -> None:
        networks = container.attrs["NetworkSettings"]["Networks"]
        address = networks.get(self._engine.name, {}).get("IPAddress")
        if container.status != "running" or not address:
            return
        end = time.monotonic() + self._settings.drain.total_seconds()
        while (left := probe.connections(address, self._settings.container_port)) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        if left:
            log.warning("%d connection(s) did not finish within `drain:`, and are cut", left)
