"""Starting, watching, draining and ending the processes of a release."""

from __future__ import annotations

import logging
import re
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from airflow_cd.exceptions import NotReadyError
from airflow_cd.model.release import Release
from airflow_cd.model.target import LocalTargetSettings as Settings
from airflow_cd.processes.process_cookie import COOKIE, end_marked
from airflow_cd.targets.local.layout import Layout, write_json
from airflow_cd.targets.local.proxy import accepts
from airflow_cd.targets.local.supervision import Process, Supervisor

log = logging.getLogger(__name__)

_LAUNCH = Path(__file__).with_name("launch.py")
_HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_LOG_LINES = 20
_ANSWER_SECONDS = 2.0
_LONGEST_STATUS = 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)\b[^\n]*\n")
_UNQUOTED = "/%?&=;+$,:@!~*'()"


class ProcessInstances:
    """The processes of one service in one environment."""

    def __init__(
        self, supervisor: Supervisor, layout: Layout, service: str, environment: str, settings: Settings
    ) -> None:
        self._supervisor, self._layout, self._settings = supervisor, layout, settings
        self._service, self._environment = service, environment
        self.prefix = f"{service}.{environment}."

    def name(self, generation: int) -> str:
        """Return the program name of a generation's instance."""
        return f"{self.prefix}{generation}"

    def start(self, release: Release, generation: int, port: int | None = None) -> str:
        """
        Start an instance and return ``host:port`` once it is ready.

        :param port: where it listens; ``None`` for a free one
        :raises NotReadyError: it did not become ready; it was ended again
        """
        port = port or _free_port()
        self._add(release, generation, port)
        started = time.monotonic()
        try:
            self._await_ready(generation, port, started)
        except NotReadyError:
            self.end(generation)
            raise
        log.info("%s is ready on port %d after %.1f s", release.version, port, time.monotonic() - started)
        return f"{_HOST}:{port}"

    def alive(self, generation: int) -> bool:
        """Tell whether the generation's instance runs."""
        process = self._supervisor.process(self.name(generation))
        return process is not None and process.alive

    def end(self, generation: int) -> None:
        """End the generation's instance, which has got no request yet."""
        self.remove(self.name(generation))

    def end_others(self, generation: int, drain: timedelta) -> None:
        """Drain and end every instance but this: the one before, and what killed attempts left."""
        for name in self._supervisor.names(self.prefix):
            number = name.removeprefix(self.prefix)
            if number.isdigit() and int(number) != generation:
                _drain(self._supervisor.process(name), drain)
                self.remove(name)
                log.info("Ended the instance of generation %s", number)

    def remove(self, name: str) -> None:
        """End a program, and what it started in sessions of its own, which the supervisor cannot know."""
        self._supervisor.remove(name)
        end_marked(self._cookie(name))

    def _cookie(self, name: str) -> str:
        # Two Airflows of one machine may have services of the same name.
        return f"{self._layout.folder}/{name}"

    def _add(self, release: Release, generation: int, port: int) -> None:
        spec = self._layout.folder / f"instance-{generation}.json"
        own = {
            "PORT": str(port),
            "HOST": _HOST,
            "CD_SERVICE": self._service,
            "CD_ENVIRONMENT": self._environment,
            "CD_RELEASE": release.digest,
            "CD_REVISION": release.revision.sha,
            "CD_VERSION": release.version,
            COOKIE: self._cookie(self.name(generation)),
        }
        write_json(
            spec,
            {
                "argv": list(self._settings.command),
                "cwd": str(self._layout.release(release.digest)),
                "env": {**self._settings.env, **own},
            },
        )
        # Without `site`, which it needs nothing of, it starts in two thirds of the time.
        argv = [sys.executable, "-I", "-S", str(_LAUNCH), str(spec)]
        self._supervisor.add(self.name(generation), argv, self._layout.log(f"instance-{generation}"))
        log.info("Starting %s on port %d", release.version, port)

    def _await_ready(self, generation: int, port: int, started: float) -> None:
        allowed = self._settings.start_timeout.total_seconds()
        first_pid = 0
        while True:
            process = self._supervisor.process(self.name(generation))
            first_pid = first_pid or (process.pid if process else 0)
            # An instance that was restarted has crashed once already, whatever it does now.
            if process is None or not process.alive or process.pid != first_pid:
                raise self._not_ready(generation, f"it ended ({process.description if process else 'gone'})")
            if self._ready(port):
                return
            if time.monotonic() - started > allowed:
                what = (
                    f"{self._settings.ready} did not answer" if self._settings.ready else "nothing listened"
                )
                raise self._not_ready(generation, f"{what} on port {port} (PORT) within {allowed:g} s")
            time.sleep(_POLL_SECONDS)

    def _ready(self, port: int) -> bool:
        if not accepts(_HOST, port):
            return False
        return self._settings.ready is None or _answers(port, self._settings.ready)

    def _not_ready(self, generation: int, reason: str) -> NotReadyError:
        try:
            text = self._layout.log(f"instance-{generation}").read_text("utf-8", "replace")
        except FileNotFoundError:
            text = ""
        last = "\n".join(f"  {line}" for line in text.splitlines()[-_LOG_LINES:])
        return NotReadyError(
            f"{self._service} did not become ready in {self._environment}: {reason}. "
            f"What ran before was left as it was. Its last words:\n{last or '  (none)'}"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, path: str) -> bool:
    """
    Return whether the status is below 400.

    Only the first line is read, within a deadline for all of it: libraries allow as long again for each byte.
    """
    end, head = time.monotonic() + _ANSWER_SECONDS, b""
    asked = f"GET {quote(path, safe=_UNQUOTED)} HTTP/1.1"
    request = f"{asked}\r\nHost: {_HOST}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((_HOST, port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(request.encode("ascii"))
            while b"\n" not in head and len(head) < _LONGEST_STATUS:
                connection.settimeout(max(end - time.monotonic(), 0.001))
                if not (chunk := connection.recv(_LONGEST_STATUS)):
                    break
                head += chunk
    except OSError:
        return False
    found = _STATUS.match(head)
    return found is not None and int(found[1]) < 400


def _drain(process: Process | None, at_most: timedelta) -> None:
    """Wait until no request is under way, so that ending the process interrupts none."""
    deadline = time.monotonic() + at_most.total_seconds()
    while process is not None and process.alive and _connections(process.pid):
        if time.monotonic() > deadline:
            log.warning("Requests are still under way after %g s; ending it anyway", at_most.total_seconds())
            return
        time.sleep(_POLL_SECONDS)


def _connections(pid: int) -> int:
    """Count connections the process and its children have accepted."""
    import psutil

    count = 0
    try:
        leader = psutil.Process(pid)
        for process in [leader, *leader.children(recursive=True)]:
            found = process.net_connections("tcp")
            ports = {connection.laddr[1] for connection in found if connection.status == "LISTEN"}
            count += sum(c.status == "ESTABLISHED" and c.laddr[1] in ports for c in found)
    except psutil.Error:
        return 0
    return count
