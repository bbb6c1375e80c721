"""Engines on other machines, behind TLS: what a connection says is used, or refused and named."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import certificate
from tests.support.cut_off import Relay
from tests.support.images import Registry
from tests.support.places import DockerPlace

from airflow_cd.exceptions import EngineError
from airflow_cd.hooks.docker import docker_client, password_of


@pytest.fixture
def behind_tls(tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The engine's address behind TLS that demands a certificate; connection ``engine`` has one."""
    # requests would believe it rather than the connection.
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    extra = {"ca_cert": cert, "client_cert": cert, "client_key": key}
    monkeypatch.setenv("AIRFLOW_CONN_ENGINE", json.dumps({"conn_type": "docker", "extra": extra}))
    relay = Relay(tmp_path / "s", os.environ["DOCKER_HOST"].removeprefix("unix://"), tls=context)
    yield relay.address
    relay.cut()


def test_an_engine_behind_tls_is_deployed_to_with_the_connections_certificates(
    behind_tls: str,
    tmp_path: Path,
    engine: Any,
    registry: Registry,
) -> None:
    place = DockerPlace(tmp_path, engine, registry)
    try:
        place.reopen(engine=behind_tls, conn_id="engine", url=f"http://127.0.0.1:{place.port}")
        place.deploy(place.release("one"))
        place.deploy(place.release("two"))
        assert (place.served(), place.target.record().generation) == ("two", 2)
    finally:
        place.close()


def test_without_certificates_an_engine_behind_tls_is_not_reached(behind_tls: str) -> None:
    with pytest.raises(Exception, match="(?i)ssl|connection|http"):
        docker_client(behind_tls, None)


def test_certificates_that_are_not_there_are_named(behind_tls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"ca_cert": "/nowhere/ca.pem", "client_cert": "/nowhere/cert.pem"}
    monkeypatch.setenv("AIRFLOW_CONN_BAD", json.dumps({"conn_type": "docker", "extra": extra}))
    with pytest.raises(EngineError, match="the certificates of connection 'bad'"):
        docker_client(behind_tls, "bad")


def test_a_connection_without_a_password_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", "http://host")
    with pytest.raises(EngineError, match="connection 'empty' has no password"):
        password_of("empty")
    with pytest.raises(EngineError, match="there is no connection 'nobody'"):
        password_of("nobody")
