"""Images, and a registry of a test's own: ``docker-registry``, what the image ``registry:2`` runs."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.ports import any_free
from harness.waiting import wait_until
from tenacity import retry, retry_if_exception_message, stop_after_attempt
from tests.support.engine import PYTHON
from tests.support.requirements import require

DOCKERFILE = f'FROM {PYTHON}\nCOPY app.py /app.py\nCMD ["python", "-u", "/app.py"]\n'

_CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


class Registry:
    """A registry process; what it holds lies in ``folder``."""

    def __init__(self, folder: Path, more: str = "") -> None:
        require(shutil.which("docker-registry"), "needs Debian's package docker-registry")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, any_free()[0]
        self.address = f"127.0.0.1:{self.port}"
        self._file = folder / "config.yml"
        self._file.write_text(_CONFIG.format(folder=folder / "data", port=self.port, more=more))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            argv = ["docker-registry", "serve", str(self._file)]
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        wait_until(self._answers, "the registry answers", timeout=120)

    def stop(self, by: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait()
            self._process = None

    def forget(self, name: str) -> None:
        """Lose a repository."""
        shutil.rmtree(self.folder / "data/docker/registry/v2/repositories" / name)

    def spoil(self, name: str, digest: str) -> None:
        """Change the bytes of a manifest where they are stored."""
        blob = self.folder / "data/docker/registry/v2/blobs/sha256"
        digits = digest.removeprefix("sha256:")
        (blob / digits[:2] / digits / "data").write_bytes(b'{"schemaVersion": 2, "evil": true}')

    def holds(self, name: str, reference: str) -> str | None:
        """Return the digest of what the registry has by this tag or digest."""
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        url = f"http://{self.address}/v2/{name}/manifests/{reference}"
        answer = httpx.head(url, headers=accept, trust_env=False)
        return answer.headers["Docker-Content-Digest"] if answer.is_success else None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.address}/v2/", trust_env=False).status_code in (200, 401)
        except httpx.TransportError:
            return False


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for all tests that do not stop it: pushing the base image again and again takes long."""
    one = Registry(tmp_path_factory.mktemp("registry"))
    yield one
    one.stop()


def built(engine: Any, repository: str, tag: str, code: str, dockerfile: str = DOCKERFILE) -> str:
    """Build an image of a Python program, push it, and return the digest the registry gave it."""
    # Another image than any other test's: what one removes, another may be building on.
    own = f"{code}\n# {repository}\n"
    context = tar_of({"Dockerfile": dockerfile.encode(), "app.py": own.encode()})
    _build(engine, context, f"{repository}:{tag}")
    digests = [event["aux"]["Digest"] for event in _pushed(engine, repository, tag) if "aux" in event]
    # What the builder keeps is not what a target keeps.
    engine.images.remove(f"{repository}:{tag}")
    return str(digests[-1])


@retry(
    # An engine that removes images for one test may remove what it is building on for another.
    retry=retry_if_exception_message(match="unable to find image"),
    stop=stop_after_attempt(5),
    reraise=True,
)
def _build(engine: Any, context: io.BytesIO, name: str) -> None:
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=name, rm=True)


def tar_of(files: dict[str, bytes]) -> io.BytesIO:
    """Return a tar of these files, read from its begin."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _pushed(engine: Any, repository: str, tag: str) -> list[dict[str, Any]]:
    events = list(engine.api.push(repository, tag=tag, stream=True, decode=True))
    failed = [event["error"] for event in events if "error" in event]
    assert not failed, failed
    return events
