"""Where tests deploy to on a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import Registry
from tests.support.places import KubernetesPlace


@pytest.fixture
def place(tmp_path: Path, engine: Any, registry: Registry, namespace: str) -> Iterator[KubernetesPlace]:
    """A service in a namespace of the test's own."""
    one = KubernetesPlace(tmp_path, engine, registry, namespace)
    yield one
    one.close()
