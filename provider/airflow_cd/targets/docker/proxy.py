"""The proxy of a service in an environment: Caddy in a container that stays."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import TargetError
from airflow_cd.targets import proxy
from airflow_cd.targets.docker.engine import read_folder, write_files
from airflow_cd.targets.record import Record

if TYPE_CHECKING:
    from docker.models.containers import Container

    from airflow_cd.targets.docker.engine import Engine

_ESTABLISHED = "01"
_ATTEMPT_SECONDS = 2
# From here on exit codes say that a program could not be run, or was killed.
_NOT_RUN = 126
# ... and this is what BusyBox's ``timeout`` makes of a program that took too long.
_TERMINATED = 143


class Probe:
    """
    Runs BusyBox's ``wget`` in the front's container, so that it works with engines on other machines too.

    :param front: its container, which runs
    """

    def __init__(self, front: Container) -> None:
        self._front = front

    def status(self, host: str, port: int, path: str) -> int | None:
        """Return the status of the answer, ``None`` when there is no HTTP answer (in time)."""
        url = f"http://{host}:{port}{path}"
        argv = ["timeout", str(_ATTEMPT_SECONDS), "wget", "-S", "-O", "/dev/null", url]
        code, output = self._front.exec_run(argv, user="0")
        said = output.decode(errors="replace")
        if found := re.search(r"HTTP/\d(?:\.\d)? (\d{3})", said):
            return int(found[1])
        if code >= _NOT_RUN and code != _TERMINATED:
            raise TargetError(
                f"wget cannot be run in the front; use another image as `front:` (exit code {code}): {said}"
            )
        return None

    def connections(self, address: str, port: int) -> int:
        """Return how many connections the front has to this address."""
        _, output = self._front.exec_run(["cat", "/proc/net/tcp"], user="0")
        octets = ipaddress.IPv4Address(address).packed[::-1]
        wanted = f"{octets.hex().upper()}:{port:04X}"
        rows = [line.split() for line in output.decode().splitlines()]
        return sum(len(row) > 3 and row[2] == wanted and row[3] == _ESTABLISHED for row in rows)


_FOLDER = "/cd"
_PORT, _ALIVE_PORT = 8080, 8081
_START_SECONDS = 30.0
_SPEC = "airflow-cd.front"
_READ_TRIES, _REMOVE_TRIES = 3, 5
# Through to the disk first: a record that a power cut emptied would be no record. Then what is old goes.
_SWITCH = 'sync && mv -f "$0" "$1" && shift && "$@"'


class ContainerProxy:
    """The container with the proxy, its network and its volume."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._name = engine, f"{engine.name}.front"

    def ensure_running(self) -> Container:
        """
        Start the front, or start it again when its configuration changed.

        :raises TargetError: it does not start, as when its port is taken
        """
        container = self._engine.container(self._name)
        if container is not None and container.labels.get(_SPEC) != self._spec():
            container.remove(force=True)
            container = None
        container = container or self._create()
        if container.status != "running":
            self._start(container)
        return container

    def record(self) -> Record:
        """Return what the current generation says."""
        container = self._engine.container(self._name) or self._recreated()
        if container is None:
            return Record()
        for _ in range(_READ_TRIES):
            files = read_folder(container, _FOLDER)
            upstream = files.get("upstream")
            if upstream is None:
                return Record()
            content = files.get(f"generations/{_generation(upstream)}.json")
            if content is not None:  # else it was switched while the folder was read
                return Record.model_validate_json(content)
        raise TargetError(
            f"{self._engine.where}: the record of {upstream!r} is missing in volume {self._engine.name!r}; "
            "remove that volume and the containers of this name to start over"
        )

    def make_current(self, record: Record) -> None:
        """Switch record and traffic to this generation, at once; the front runs."""
        container = self.ensure_running()
        number, port = record.generation, self._engine.settings.container_port
        files = {
            f"generations/{number}.json": record.model_dump_json().encode(),
            f"next-{number}": f"{alias(number)}:{port}".encode(),
        }
        write_files(container, _FOLDER, files)
        self._run(
            container, "sh", "-c", _SWITCH, f"{_FOLDER}/next-{number}", f"{_FOLDER}/upstream", *_old(number)
        )

    def prune(self, record: Record) -> None:
        """Remove what killed attempts wrote of other generations."""
        self._run(self.ensure_running(), *_old(record.generation))

    def probe(self) -> Probe:
        """Return what looks at containers as the front sees them."""
        return Probe(self.ensure_running())

    def remove(self) -> None:
        """Remove the container, the network and the volume with the record."""
        from docker.errors import APIError, NotFound

        client = self._engine.client
        for attempt in range(1, _REMOVE_TRIES + 1):
            with suppress(NotFound):
                client.containers.get(self._name).remove(force=True)
            try:
                for network in client.networks.list(names=[f"^{self._engine.name}$"]):
                    network.remove()
                with suppress(NotFound):
                    client.volumes.get(self._engine.name).remove()
                return
            except APIError:  # a concurrent read of the record has created a proxy to read it from
                if attempt == _REMOVE_TRIES:
                    raise

    def _recreated(self) -> Container | None:
        """Return a new proxy where the container was removed and its volume was left."""
        from docker.errors import NotFound

        try:
            self._engine.client.volumes.get(self._engine.name)
        except NotFound:
            return None
        return self._create()

    def _create(self) -> Container:
        from docker.errors import APIError

        engine, settings, client = self._engine, self._engine.settings, self._engine.client
        if not client.networks.list(names=[f"^{engine.name}$"]):
            client.networks.create(engine.name, driver="bridge", labels=engine.labels())
        client.volumes.create(engine.name, labels=engine.labels())
        try:
            container = client.containers.create(
                settings.front,
                entrypoint=["caddy"],
                command=["run", "--config", f"{_FOLDER}/front.json"],
                name=self._name,
                labels=engine.labels(front=self._spec()),
                environment={"HOME": "/tmp", "XDG_CONFIG_HOME": "/tmp", "XDG_DATA_HOME": "/tmp"},
                user="1000:1000",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                network=engine.name,
                ports={f"{_PORT}/tcp": (settings.host, settings.port)},
                volumes={engine.name: {"bind": _FOLDER, "mode": "rw"}},
                restart_policy={"Name": "unless-stopped"},
            )
        except APIError as error:
            found = engine.container(self._name)
            if error.status_code != 409 or found is None:
                raise
            return found
        return container

    def _start(self, container: Container) -> None:
        from docker.errors import APIError

        settings = self._engine.settings
        # Here and not when it is created: its creator may have been killed before it had a configuration.
        write_files(container, _FOLDER, {"front.json": json.dumps(_CONFIG, indent=1).encode()})
        try:
            container.start()
        except APIError as error:
            container.remove(force=True)
            raise TargetError(
                f"{self._engine.where}: the front cannot listen on {settings.host}:{settings.port}: "
                f"{error.explanation}. Free the port, or choose another `port:` for this environment."
            ) from error
        probe, deadline = Probe(container), time.monotonic() + _START_SECONDS
        while probe.status("127.0.0.1", _ALIVE_PORT, "/") is None:
            container.reload()
            if container.status != "running" or time.monotonic() > deadline:
                said = container.logs(tail=20).decode(errors="replace")
                raise TargetError(f"{self._engine.where}: the front does not start: {said}")

    def _run(self, container: Container, *argv: str) -> None:
        code, output = container.exec_run(list(argv), user="0")
        if code:
            said = output.decode(errors="replace").strip()
            raise TargetError(f"{self._engine.where}: {argv[0]} in {self._name} failed: {said}")

    def _spec(self) -> str:
        settings = self._engine.settings
        spec = [settings.front, settings.host, settings.port, _CONFIG]
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def alias(generation: int) -> str:
    """Return what the front calls the container of a generation."""
    return f"g{generation}"


def _old(generation: int) -> tuple[str, ...]:
    """Return the command that removes what was written of all other generations."""
    record, others = f"{generation}.json", f"{_FOLDER}/generations/*.json"
    which = ("(", "-path", others, "!", "-name", record, "-o", "-name", "next-*", ")")
    return "find", _FOLDER, "-type", "f", *which, "-exec", "rm", "-f", "{}", "+"


def _generation(upstream: bytes) -> int:
    return int(upstream.decode().partition(":")[0].removeprefix("g"))


def _config() -> dict[str, Any]:
    # Not published: it tells the process that started the proxy that it runs, before there is a release.
    alive = {
        "listen": [f":{_ALIVE_PORT}"],
        "automatic_https": {"disable": True},
        "routes": [{"handle": [{"handler": "static_response", "status_code": 200}]}],
    }
    servers = {"front": proxy.proxy_config(f":{_PORT}", f"{_FOLDER}/upstream"), "alive": alive}
    return {**proxy.SETTINGS, "apps": {"http": {"grace_period": proxy.GRACE_PERIOD, "servers": servers}}}


_CONFIG = _config()
