"""The folder target passes the conformance suite, and services files can name it."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.model.release import Release
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.packaging.archive import pack
from airflow_cd.testing.target_conformance import TargetConformance
from airflow_cd.testing.target_place import TargetPlace

EXAMPLE = Path(__file__).parents[1]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class FolderPlace(TargetPlace):
    """A folder, and a static web server for it."""

    kind = "folder"
    not_ready = "broken has no file index.html"

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "www"
        serve = functools.partial(QuietHandler, directory=str(self.path / "current" / "site"))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), serve)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        super().__init__(folder, **settings)

    def settings(self) -> dict[str, Any]:
        return {"path": str(self.path), "url": f"http://127.0.0.1:{self.server.server_port}", "keep": 2}

    def release(self, text: str) -> Release:
        return self.packaged(text, "index.html")

    def broken_release(self, text: str) -> Release:
        return self.packaged(text, "README")

    def packaged(self, text: str, file: str) -> Release:
        source = self.folder / f"source-{text}"
        source.mkdir()
        (source / file).write_text(text)
        archive = self.folder / "archive.tar.gz"
        pack(source, archive, include=["**"])
        return self.release_of(self.store.put_file(archive), text)

    def instances(self) -> list[str]:
        return [(self.path / "current" / "site").resolve().name]

    def kept(self) -> set[str]:
        return {f"sha256:{folder.name}" for folder in (self.path / "releases").iterdir()}

    def lose_sources(self) -> None:
        shutil.rmtree(self.folder / "store")

    def spoil(self, release: Release) -> None:
        for blob in (self.folder / "store" / "blobs").rglob("*"):
            if blob.is_file() and release.digest.endswith(blob.name):
                blob.write_bytes(b"evil")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class TestFolderTarget(TargetConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[FolderPlace]:
        place = FolderPlace(tmp_path)
        yield place
        place.close()


def test_a_services_file_can_name_it() -> None:
    found = load_services(EXAMPLE / "services.yaml")
    assert found.errors == ()
    target = found.services[0].production.target
    assert (target.kind, target.described) == ("folder", "https://handbook.example")


def test_a_wrong_key_is_named_with_its_line(tmp_path: Path) -> None:
    text = (EXAMPLE / "services.yaml").read_text().replace("url:", "uri:")
    file = tmp_path / "services.yaml"
    file.write_text(text)
    problems = "\n".join(str(error) for error in load_services(file).errors)
    assert "services.yaml:10: service 'handbook': unknown key 'uri'" in problems
    assert "Did you mean 'url'?" in problems
