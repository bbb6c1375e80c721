"""Starting, watching, draining and ending the containers of a release."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_cd.exceptions import NotReadyError
from airflow_cd.targets.docker.engine import GENERATION, TARGET, write_files
from airflow_cd.targets.docker.proxy import alias

if TYPE_CHECKING:
    from docker.models.containers import Container

    from airflow_cd.model.release import Release
    from airflow_cd.targets.docker.engine import Engine
    from airflow_cd.targets.docker.proxy import Probe

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_LOG_LINES = 20


class ContainerInstances:
    """
    The containers of one service in one environment.

    :param identity: environment variables of each instance, besides those of its release
    :param secret: returns the password of a connection
    """

    def __init__(self, engine: Engine, identity: dict[str, str], secret: Callable[[str], str]) -> None:
        self._engine, self._settings = engine, engine.settings
        self._identity, self._secret = identity, secret

    def start(self, release: Release, generation: int, probe: Probe) -> None:
        """
        Start a container, and return once it is ready.

        The engine restarts it by itself from then on, not before: what crashes at once is seen to.

        :raises NotReadyError: it did not become ready; it was removed again
        """
        container = self._found(generation)
        if container is not None and container.status == "created":
            # Its creator may have been killed before it added networks and secrets.
            container.remove(force=True, v=True)
            container = None
        container = container or self._create(release, generation)
        started = time.monotonic()
        try:
            self._run(container)
            self._await_ready(container, generation, probe, started)
        except NotReadyError:
            container.remove(force=True, v=True)
            raise
        container.update(restart_policy={"Name": self._settings.restart})
        log.info("%s is ready after %.1f s", release.version, time.monotonic() - started)

    def alive(self, generation: int) -> bool:
        """Tell whether the generation's container runs."""
        container = self._found(generation)
        return container is not None and container.status == "running"

    def end(self, generation: int) -> None:
        """End the generation's container, which has got no request yet."""
        if container := self._found(generation):
            container.remove(force=True, v=True)

    def end_others(self, generation: int, probe: Probe) -> None:
        """Drain and end every container but this: the one before, and what killed attempts left."""
        for container in self.all():
            if container.labels[GENERATION] == str(generation):
                continue
            self._drain(container, probe)
            container.stop(timeout=int(self._settings.stop_timeout.total_seconds()))
            container.remove(force=True, v=True)
            log.info("Ended the container of generation %s", container.labels[GENERATION])

    def all(self) -> list[Container]:
        """Return the containers of all generations, running or not."""
        filters = {"label": [f"{TARGET}={self._engine.label}", GENERATION]}
        return list(self._engine.client.containers.list(all=True, filters=filters, ignore_removed=True))

    def _found(self, generation: int) -> Container | None:
        return self._engine.container(f"{self._engine.name}.{generation}")

    def _create(self, release: Release, generation: int) -> Container:
        settings, client = self._settings, self._engine.client
        endpoint = client.api.create_endpoint_config(aliases=[alias(generation)])
        container = client.containers.create(
            release.pull_spec,
            command=list(settings.command) if settings.command else None,
            name=f"{self._engine.name}.{generation}",
            labels=self._engine.labels(
                generation=str(generation),
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
            container.remove(force=True, v=True)
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

    def _await_ready(self, container: Container, generation: int, probe: Probe, started: float) -> None:
        allowed = self._settings.start_timeout.total_seconds()
        answered = False
        while True:
            answer = probe.status(alias(generation), self._settings.container_port, self._path)
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
