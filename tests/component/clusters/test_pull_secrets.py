"""Logins of registries from connections: as kubelets want them, and masked."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airflow_cd.clusters.namespaces import pull_secret
from airflow_cd.clusters.pull_secrets import login_of
from airflow_cd.exceptions import EngineError


def connect(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_REGISTRY", json.dumps({"conn_type": "docker", **parts}))


@pytest.mark.parametrize(
    ("host", "port", "registry"),
    [
        ("r.example", None, "r.example"),
        ("https://r.example/v2/", None, "r.example"),
        ("r.example", 5000, "r.example:5000"),
        ("r.example:5000", 5000, "r.example:5000"),
        ("docker.io", None, "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", None, "https://index.docker.io/v1/"),
    ],
)
def test_the_registry_is_called_as_images_call_it(
    monkeypatch: pytest.MonkeyPatch, host: str, port: int | None, registry: str
) -> None:
    connect(monkeypatch, host=host, port=port, login="bot", password="pass-of-bot")
    secret = pull_secret("regcred", "eu", login_of("registry"))
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    entry = config["auths"][registry]
    assert base64.b64decode(entry["auth"]).decode() == "bot:pass-of-bot"
    assert secret["type"] == "kubernetes.io/dockerconfigjson"


@pytest.mark.parametrize("missing", ["host", "login", "password"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    parts = {"host": "r.example", "login": "bot", "password": "pass-of-bot"}
    del parts[missing]
    connect(monkeypatch, **parts)
    with pytest.raises(EngineError, match=f"'registry' has no {missing}"):
        login_of("registry")


def test_a_connection_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_REGISTRY", raising=False)
    with pytest.raises(EngineError, match="no connection 'registry'"):
        login_of("registry")


def test_it_is_masked_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda secret, name=None: masked.append(secret))
    connect(monkeypatch, host="r.example", login="bot", password="pass-of-bot")
    login = login_of("registry")
    written = pull_secret("regcred", "eu", login)["data"][".dockerconfigjson"]
    auth = base64.b64encode(b"bot:pass-of-bot").decode()
    assert {"pass-of-bot", auth, written} <= set(masked)
    assert "pass-of-bot" not in repr(login)
