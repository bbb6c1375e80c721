"""Who may change what runs: a lease that the engine takes from a holder that dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.processes.lease_holder import LeaseHolder, described, held_since

if TYPE_CHECKING:
    from docker.models.containers import Container

    from airflow_cd.targets.docker.engine import Engine

log = logging.getLogger(__name__)

_HOLDER = "airflow-cd.holder"
# A holder that was killed a moment ago is let go of by then.
_PATIENCE = 3.0
# A holder that was killed before it started its lease; one that is only slow tries again.
_NEVER_STARTED = 5.0
# Only where the engine does not notice that a holder is gone, as when it was restarted with live-restore.
_AT_MOST = 2 * 3600.0


class EngineLease:
    """
    A container that runs ``cat`` for as long as its holder is connected to its input, and is then removed.

    Its name can be had once. When the holder is killed, or its machine dies, the connection ends, and with it
    ``cat``. A holder that lost the lease, since the engine was restarted, finds that out by :meth:`check`.

    A holder can be stopped between a check and what it does next. So it looks first, checks then, and changes
    exactly what it saw, by id; and the switch takes the *turn*: see :class:`..proxy.ContainerProxy`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._name = engine, f"{engine.name}.lease"
        self._held: Container | None = None

    @contextmanager
    def held(self, actor: str, what: str) -> Iterator[None]:
        """
        Hold the lease.

        :raises DeployConflictError: another holds it, or it was lost and something failed then
        """
        self._held, connection = self._take(actor, what)
        try:
            yield
        except Exception as error:
            self._explain(error)
            raise
        finally:
            with suppress(Exception):  # else the engine removes it when the connection ends, just below
                self._held.remove(force=True)
            self._held = None
            connection.close()

    def check(self) -> None:
        """
        Make sure that the lease is still held.

        :raises DeployConflictError: it is not
        """
        if not self._is_held():
            raise self.lost()

    def lost(self) -> DeployConflictError:
        """Return the error of a holder that lost the lease before it switched."""
        return DeployConflictError(
            f"the lease on {self._engine.where} was lost, as when the engine was restarted; "
            "nothing was switched"
        )

    def _is_held(self) -> bool:
        assert self._held is not None, "checked by its holder"
        current = self._engine.container(self._name)
        return current is not None and current.id == self._held.id and current.status == "running"

    def _explain(self, error: Exception) -> None:
        """
        Say that the lease was lost, where that is why something failed: another holder removed a container.

        :raises DeployConflictError: it was
        """
        if isinstance(error, DeployConflictError):
            return
        held = True
        with suppress(Exception):  # an engine that does not answer has taken no lease
            held = self._is_held()
        if not held:
            raise DeployConflictError(
                f"the lease on {self._engine.where} was lost, as when the engine was restarted; then: {error}"
            ) from error

    def _take(self, actor: str, what: str) -> tuple[Container, Any]:
        seen: dict[str, float] = {}
        while True:
            taken = self._try(actor, what)
            if taken is not None:
                return taken
            holder = self._engine.container(self._name)
            if holder is None:  # it has just been let go of
                time.sleep(0.1)
                continue
            starting = holder.status == "created"
            waited = time.monotonic() - seen.setdefault(str(holder.id), time.monotonic())
            if self._is_abandoned(holder, waited):
                # Without force where it was never started: should it start just now, it is its holder's.
                with suppress(Exception):  # another process was faster
                    holder.remove(force=not starting)
            elif waited > _PATIENCE and not starting:
                raise DeployConflictError(
                    f"{self._engine.where} is being deployed by another run: {described(_holder(holder))}"
                )
            else:
                time.sleep(0.1)

    def _try(self, actor: str, what: str) -> tuple[Container, Any] | None:
        from docker.errors import APIError, NotFound

        client = self._engine.client
        holder = LeaseHolder.of_this_process(actor, what).to_json()
        try:
            made = client.api.create_container(
                self._engine.settings.front,
                entrypoint=["cat"],
                name=self._name,
                labels=self._engine.labels(holder=holder),
                stdin_open=True,
                host_config=client.api.create_host_config(
                    auto_remove=True, network_mode="none", cap_drop=["ALL"]
                ),
            )
        except APIError as error:
            if error.status_code == 409:
                return None
            raise
        try:
            connection = client.api.attach_socket(made["Id"], {"stdin": 1, "stream": 1})
            client.api.start(made["Id"])
            return client.containers.get(made["Id"]), connection
        except NotFound:  # this took so long that another process believed it abandoned
            return None

    @staticmethod
    def _is_abandoned(holder: Container, waited: float) -> bool:
        if holder.status == "created":
            return waited > _NEVER_STARTED
        age = time.time() - held_since(_holder(holder))
        return holder.status in ("exited", "dead") or age > _AT_MOST


def _holder(container: Container | None) -> str | None:
    return None if container is None else container.labels.get(_HOLDER)
