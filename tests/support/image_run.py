"""As :class:`tests.support.local_run.LocalRun`, for a service that is packaged as an image."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import need_front_image, remove_all
from tests.support.images import DOCKERFILE, Registry
from tests.support.local_run import LocalRun

from airflow_cd.model.service import Service
from airflow_cd.testing.programs import APP


class ImageRun(LocalRun):
    """A service with one environment, ``production``, on a Docker engine."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, engine: Any, registry: Registry
    ) -> None:
        super().__init__(folder, monkeypatch)
        need_front_image(engine)
        self.engine, self.registry = engine, registry
        self.name = f"hello-{uuid.uuid4().hex[:8]}"
        self.repository_of_images = f"{registry.address}/{self.name}"

    def defined(self, signing: str | None = None, **image: Any) -> Service:
        """Return the service. :param image: further settings of its image"""
        docker = {"port": self.port, "drain": "100ms", "init": True, "conn_id": image.get("conn_id")}
        definition = {
            "name": self.name,
            "pipeline": "deployment",
            "source": {"repository": self.repository.url},
            "package": {"image": {"repository": self.repository_of_images, **image}},
            "artifacts": self.store.url,
            "environments": [{"name": "production", "target": {"docker": docker}}],
        }
        if signing is not None:
            definition["signing"] = {"conn_id": signing}
            definition["environments"][0]["verify"] = {"conn_ids": [signing]}  # type: ignore[index]
        return Service.model_validate(definition)

    def commit(self, text: str, dockerfile: str = DOCKERFILE, **files: str) -> str:
        # Another image than any other test's: what one removes, another may be building on.
        code = APP.replace("{text!r}", repr(text)) + f"\n# {self.name}\n"
        return self.repository.commit({"app.py": code, "Dockerfile": dockerfile, **files})

    def close(self) -> None:
        remove_all(self.engine, self.name, self.repository_of_images)
