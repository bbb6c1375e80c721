"""Of tests of metrics: what is judged in these tests, and servers to measure at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.answering import AnsweringServer, answering_server

from airflow_cd.model.subject import Subject


@pytest.fixture
def subject() -> Subject:
    return Subject(
        service="hello",
        environment="production",
        version="1.2.0",
        revision="0" * 40,
        digest="sha256:abc",
        namespace="shop",
        canary="hello-canary",
        stable="hello",
    )


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with answering_server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine are asked directly."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
