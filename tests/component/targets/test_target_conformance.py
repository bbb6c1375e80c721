"""The built-in targets pass the conformance suite. A new target is one more row in PLACES."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.ports import is_listening
from tests.support.places import DockerPlace, KubernetesPlace, LocalPlace, Place

from airflow_cd.targets.registry import TARGETS
from airflow_cd.testing.target_conformance import TargetConformance

PLACES = {"local": LocalPlace, "docker": DockerPlace, "kubernetes": KubernetesPlace}
_NEEDS = {"local": (), "docker": ("engine", "registry"), "kubernetes": ("engine", "registry", "namespace")}


def test_every_registered_target_is_tested() -> None:
    assert set(PLACES) == set(TARGETS)


class TestTargets(TargetConformance):
    @pytest.fixture(params=sorted(PLACES))
    def place(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
        kind = request.param
        more = {name: request.getfixturevalue(name) for name in _NEEDS[kind]}
        one = PLACES[kind](tmp_path, **more)
        try:
            yield one
        finally:
            one.close()
        # A Kubernetes target answers at its Service's address, on no port of this machine.
        assert kind == "kubernetes" or not is_listening(one.port)
