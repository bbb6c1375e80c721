"""A real Prometheus that scrapes an exporter whose values a test sets."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness.waiting import wait_until
from tests.support.requirements import require

_UP_SECONDS = 60.0
_SCRAPED_SECONDS = 30.0


class Exporter(ThreadingHTTPServer):
    """Serves the samples it was given, as Prometheus reads them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Metrics)
        self._samples: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def change(self, samples: Mapping[str, float | None]) -> None:
        """Set samples, by name and labels as in ``errors{app="a"}``; ``None`` takes one away."""
        with self._lock:
            kept = {**self._samples, **samples}
            self._samples = {name: value for name, value in kept.items() if value is not None}

    def written(self) -> str:
        """Return what is scraped."""
        with self._lock:
            return "".join(f"{name} {float(value)}\n" for name, value in self._samples.items())


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Exporter)
        content = self.server.written().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Prometheus:
    """
    A running server.

    :param url: where it answers, without a trailing slash
    """

    def __init__(self, url: str, exporter: Exporter) -> None:
        self.url, self._exporter = url, exporter
        self._rounds = 0

    def set(self, samples: Mapping[str, float | None]) -> None:
        """
        Set samples, and return when queries see all of them.

        :param samples: by name and labels, as in ``errors{app="a"}``; ``None`` takes one away
        """
        self._rounds += 1
        self._exporter.change({**samples, "test_round": self._rounds})
        # All of one scrape gets visible at once.
        wait_until(
            lambda: self.values("test_round") == [float(self._rounds)],
            f"Prometheus scraped {dict(samples)}",
            timeout=_SCRAPED_SECONDS,
        )

    def values(self, query: str) -> list[float]:
        """Return the values a query comes to."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False)
        return [float(one["value"][1]) for one in answer.raise_for_status().json()["data"]["result"]]


@contextmanager
def running_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on a free port, with its data in this folder, until the end of the ``with``."""
    with Exporter() as exporter:
        threading.Thread(target=exporter.serve_forever, daemon=True).start()
        scrape = {"job_name": "test", "static_configs": [{"targets": [exporter.address]}]}
        config = folder / "prometheus.yml"
        intervals = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config.write_text(yaml.safe_dump({"global": intervals, "scrape_configs": [scrape]}))
        log = folder / "prometheus.log"
        # Port 0 is a free one; which one it is stands in the log.
        argv = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--log.level=info",
        ]
        with log.open("wb") as output:
            server = subprocess.Popen(
                argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder
            )
        try:
            yield Prometheus(_url(server, log), exporter)
        finally:
            server.terminate()
            server.wait(30)
            exporter.shutdown()


def _url(server: subprocess.Popen[bytes], log: Path) -> str:
    def ready() -> str | None:
        assert server.poll() is None, f"Prometheus ended:\n{log.read_text()}"
        for line in log.read_text().splitlines():
            if 'msg="Listening on"' in line:
                url = "http://" + line.partition("address=")[2].split()[0]
                return url if _answers(f"{url}/-/ready") else None
        return None

    return wait_until(ready, "Prometheus is ready", timeout=_UP_SECONDS, explain=log.read_text)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus of the tests of this module; names of samples are for each test to choose."""
    require(shutil.which("prometheus"), "prometheus is missing: apt-get install prometheus")
    with running_prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server
