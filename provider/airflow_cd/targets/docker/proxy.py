"""The proxy of a service in an environment: Caddy in a container that stays."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import TargetError
from airflow_cd.targets import proxy
from airflow_cd.targets.docker.attempt import Attempt
from airflow_cd.targets.docker.engine import end, read_folder, write_files
from airflow_cd.targets.record import Record

if TYPE_CHECKING:
    from docker.models.containers import Container

    from airflow_cd.targets.docker.engine import Engine
    from airflow_cd.targets.docker.lease import EngineLease

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
# Scripts for BusyBox's ``sh``. This is how they say that another holder has the turn.
_LOST = 75
# The first turn, made at once or not at all: the folder cannot be moved onto another that is not empty.
_FIRST_TURN = """
cd "$0" && mkdir -p "$1/turn/first" && : > "$1/turn/first/held" || exit 1
mv "$1/turn" . 2> /dev/null
rm -rf "$1"
[ -d turn ]
"""
_TAKE_TURN = f"""
cd "$0" || exit 1
mv "turn/$1" "turn/$2" && exit 0
[ -d "turn/$1" ] || exit {_LOST}
exit 1
"""
# A generation never becomes current when its number was reached by another one. So what is deleted is of no
# use to anybody, whenever this is done; a number that was not reached yet may be of a holder at work.
_CLEAN = """
if [ -e upstream ]; then
    current=$(sed 's/^g//; s/:.*//' upstream) || exit 1
    for file in generations/*.json; do
        name=${file#generations/} && name=${name%.json}
        case $name in "$current" | *[!0-9a-f-]*) continue ;; esac
        [ "${name%%-*}" -gt "${current%%-*}" ] || rm -f "$file"
    done
fi
rm -f next-*
"""
# $1: the turn, $2: the attempt, $3: the generation to be replaced, $4: what the front is to read. The last
# `mv` does it; it fails when the turn was taken, at whatever moment. Through to the disk first: a record that
# a power cut emptied would be no record. Then what is old goes, with files of attempts that were killed.
_SWITCH = f"""
cd "$0" || exit 1
now=$(sed 's/^g//; s/[-:].*//' upstream 2> /dev/null)
[ "${{now:-0}}" = "$3" ] && [ -f "generations/$2.json" ] && [ -d "turn/$1" ] \\
    && printf %s "$4" > "turn/$1/next-$1" && sync && mv -f "turn/$1/next-$1" upstream
if [ $? != 0 ]; then
    rm -f "generations/$2.json"
    [ -d "turn/$1" ] && [ "${{now:-0}}" = "$3" ] && exit 1
    exit {_LOST}
fi
rm -f "turn/$1"/next-*
{_CLEAN}"""


class Turn(NamedTuple):
    """
    The right to switch, until another holder takes it.

    :param token: unique
    :param current: what served when it was taken, and serves until the holder of the turn switches
    """

    token: str
    current: Attempt | None


class _NotRunError(TargetError):
    """The image of the front lacks a program."""


class ContainerProxy:
    """
    The container with the proxy, its network and its volume::

        upstream                        g<generation>-<token>:<port>, the container that gets the requests
        generations/<n>-<token>.json    record; the current one is that of ``upstream``
        turn/<token>/                   exactly one; its name is the last holder's token

    A holder that lost its lease can come at any time, since it can be stopped between a check of the lease
    and what it does next. So there is a *turn*: a folder with the token of its holder in its name. A holder
    sees whose turn it was, checks its lease, and renames the folder; that fails if another did so since. Then
    it reads what serves. It switches by moving a file out of that folder to ``upstream``: one step, which
    fails once another holder has taken the turn. Before the front itself is replaced or removed, the turn
    becomes *closed*, and a holder that finds it so does not rely on that container. All of this works without
    a lock, since not every BusyBox has ``flock``.
    """

    def __init__(self, engine: Engine, lease: EngineLease) -> None:
        self._engine, self._lease, self._name = engine, lease, f"{engine.name}.front"

    def ensure_running(self) -> Container:
        """
        Start the front, or start it again when its configuration changed.

        :raises TargetError: it does not start, as when its port is taken
        :raises DeployConflictError: the lease was lost
        """
        container = self._engine.container(self._name)
        if container is not None and container.labels.get(_SPEC) != self._spec():
            self._end(container)
            container = None
        if container is None or container.status != "running":
            self._lease.check()
            container = container or self._create()
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
            content = files.get(f"generations/{_attempt(upstream).name}.json")
            if content is not None:  # else it was switched while the folder was read
                return Record.model_validate_json(content)
        raise TargetError(
            f"{self._engine.where}: the record of {upstream!r} is missing in volume {self._engine.name!r}; "
            "remove that volume and the containers of this name to start over"
        )

    def take_turn(self, record: Record) -> Turn:
        """
        Keep away every earlier holder, whatever it was about to do.

        :param record: as this holder read it
        :raises DeployConflictError: another holder has changed it, or has taken the turn
        """
        container = self.ensure_running()
        seen = self._turn(container)
        if seen == _closed(container):
            self._end(container)
            container = self.ensure_running()
            seen = self._turn(container)
        token = secrets.token_hex(4)
        # In this order: if the lease is held now, what was seen is no later holder's.
        self._lease.check()
        self._run(container, _TAKE_TURN, seen, token)
        return Turn(token, self.current(record))

    def current(self, record: Record) -> Attempt | None:
        """
        Return which attempt serves.

        :param record: as this holder knows it
        :raises DeployConflictError: it is not the current one any more
        """
        upstream = read_folder(self.ensure_running(), _FOLDER).get("upstream")
        current = None if upstream is None else _attempt(upstream)
        if (current.generation if current else 0) != record.generation:
            raise self._lease.lost()
        return current

    def make_current(self, attempt: Attempt, record: Record) -> None:
        """
        Switch record and traffic to this attempt, at once; the front runs.

        :param attempt: its token is that of the turn
        :raises DeployConflictError: another holder has taken the turn; nothing was switched
        """
        container = self.ensure_running()
        write_files(
            container, _FOLDER, {f"generations/{attempt.name}.json": record.model_dump_json().encode()}
        )
        upstream = f"{attempt.alias}:{self._engine.settings.container_port}"
        self._run(container, _SWITCH, attempt.token, attempt.name, str(attempt.generation - 1), upstream)

    def prune(self) -> None:
        """Remove what killed attempts wrote of other generations."""
        self._run(self.ensure_running(), f'cd "$0" || exit 1\n{_CLEAN}')

    def probe(self) -> Probe:
        """Return what looks at containers as the front sees them."""
        return Probe(self.ensure_running())

    def remove(self) -> None:
        """
        Remove the container, the network and the volume with the record.

        :raises DeployConflictError: the lease was lost
        """
        from docker.errors import APIError, NotFound

        client = self._engine.client
        for attempt in range(1, _REMOVE_TRIES + 1):
            container = self._engine.container(self._name)
            try:
                # The engine removes neither a network nor a volume that another holder's front uses.
                self._lease.check()
                if container is not None:
                    self._end(container)
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
            self._create_network()
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

    def _create_network(self) -> None:
        """Create the network once: the engine would have several of a name, and then refuse that name."""
        from docker.errors import APIError

        engine = self._engine
        try:
            engine.client.networks.create(
                engine.name, driver="bridge", labels=engine.labels(), check_duplicate=True
            )
        except APIError as error:
            if error.status_code != 409:
                raise

    def _start(self, container: Container) -> None:
        from docker.errors import APIError

        settings = self._engine.settings
        # Here and not when it is created: its creator may have been killed before it had a configuration.
        write_files(container, _FOLDER, {"front.json": json.dumps(_CONFIG, indent=1).encode()})
        try:
            container.start()
        except APIError as error:
            with suppress(APIError):  # without force: it stays if another holder could start it
                container.remove()
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

    def _end(self, container: Container) -> None:
        """
        Remove this container, unless another holder relies on it.

        :raises DeployConflictError: the lease was lost
        """
        from docker.errors import NotFound

        if container.status == "running":
            with suppress(_NotRunError):  # a front without a shell has switched nothing
                self._close(container)
        else:
            self._lease.check()
        if container.status in ("running", "paused", "restarting"):
            end(container)
        else:
            with suppress(NotFound):
                container.remove()  # without force: it stays if another holder has just started it

    def _close(self, container: Container) -> None:
        seen = self._turn(container)
        self._lease.check()
        if seen != _closed(container):
            self._run(container, _TAKE_TURN, seen, _closed(container))

    def _turn(self, container: Container) -> str:
        """Return whose turn it is."""
        for _ in range(_READ_TRIES):
            for path in read_folder(container, _FOLDER):
                if found := re.fullmatch(r"turn/([^/]+)/held", path):
                    return found[1]
            # Else it was taken while the folder was read, or there was none yet.
            self._run(container, _FIRST_TURN, f"new-{secrets.token_hex(4)}")
        raise TargetError(f"{self._engine.where}: {self._name} does not say whose turn it is")

    def _run(self, container: Container, script: str, *arguments: str) -> None:
        code, output = container.exec_run(["sh", "-c", script, _FOLDER, *arguments], user="0")
        if code == _LOST:
            raise self._lease.lost()
        if code:
            said = output.decode(errors="replace").strip()
            kind = _NotRunError if code >= _NOT_RUN else TargetError
            raise kind(f"{self._engine.where}: a script in {self._name} failed: {said}")

    def _spec(self) -> str:
        settings = self._engine.settings
        spec = [settings.front, settings.host, settings.port, _CONFIG]
        return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _attempt(upstream: bytes) -> Attempt:
    return Attempt.of(upstream.decode().partition(":")[0].removeprefix("g"))


def _closed(container: Container) -> str:
    """Return what the turn is called when this container is about to be removed."""
    return f"closed-{container.short_id}"


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
