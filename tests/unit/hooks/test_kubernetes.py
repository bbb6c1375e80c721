"""What a connection must not make a worker do. Connections that work are in the component tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.exceptions import ClusterError
from airflow_cd.hooks.kubernetes import configuration_of


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that the program of the kubeconfig creates when it runs."""
    return tmp_path / "it-ran"


@pytest.fixture
def kubeconfig(marker: Path) -> dict[str, Any]:
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "touch",
        "args": [str(marker)],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "usual",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [
            {"name": "usual", "context": {"cluster": "c", "user": "program"}},
            {"name": "token", "context": {"cluster": "c", "user": "token"}},
        ],
        "users": [
            {"name": "program", "user": {"exec": program}},
            {"name": "token", "user": {"token": "secret"}},
        ],
    }


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_K8S", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    return "k8s"


@pytest.mark.parametrize("form", ["text", "object", "path"])
def test_a_connection_runs_no_program_on_the_worker(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: dict[str, Any], marker: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps(kubeconfig))
    forms: dict[str, dict[str, Any]] = {
        "text": {"kube_config": json.dumps(kubeconfig)},
        "object": {"kube_config": kubeconfig},
        "path": {"kube_config_path": str(file)},
    }
    conn_id = connect(monkeypatch, **forms[form])
    with pytest.raises(ClusterError, match="'k8s'.*'program'.*`exec`.*kubeconfig_commands"):
        configuration_of(conn_id, None)
    assert not marker.exists()
    configuration, _ = configuration_of(conn_id, "token")  # another user of the same kubeconfig
    assert configuration.host == "https://127.0.0.1:1"


def test_it_does_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: dict[str, Any], marker: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__CD__KUBECONFIG_COMMANDS", "True")
    configuration_of(connect(monkeypatch, kube_config=kubeconfig), None)
    assert marker.exists()


def test_the_workers_own_kubeconfig_is_trusted(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: dict[str, Any], marker: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(file))
    configuration_of(None, None)
    assert marker.exists()
