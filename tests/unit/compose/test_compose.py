"""The team's Airflow in containers: it cannot be started with a secret everybody knows."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from tests.support.requirements import require

ROOT = Path(__file__).parents[3]
_RUN_ONCE = {"migrate"}


def write(file: Path) -> str:
    script = [sys.executable, str(ROOT / "compose" / "write_secrets.py"), str(file)]
    return subprocess.run(script, check=True, capture_output=True, text=True).stdout


def values(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def config(file: Path) -> subprocess.CompletedProcess[str]:
    compose = shutil.which("docker-compose")
    require(compose, "needs docker-compose (apt-get install docker-compose)")
    argv = [str(compose), "--env-file", str(file), "--file", str(ROOT / "docker-compose.yaml"), "config"]
    # Nothing of the caller's environment stands in for the file.
    env = {"PATH": os.environ["PATH"], "HOME": str(file.parent)}
    return subprocess.run(argv, capture_output=True, text=True, env=env, cwd=file.parent)


@pytest.fixture
def services(tmp_path: Path) -> dict[str, Any]:
    """The services as compose understands them."""
    write(tmp_path / ".env")
    checked = config(tmp_path / ".env")
    assert checked.returncode == 0, checked.stderr
    return dict(yaml.safe_load(checked.stdout)["services"])


def test_secrets_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    assert "CD_ADMIN_PASSWORD" in write(file)
    first = values(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    Fernet(first["CD_FERNET_KEY"])
    secrets = {name: value for name, value in first.items() if name != "CD_DOCKER_GID"}
    assert len(set(secrets.values())) == len(secrets) == 6
    assert all(len(value) >= 32 for value in secrets.values())
    assert write(file) == ""
    assert values(file) == first
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


@pytest.mark.parametrize("missing", ["CD_FERNET_KEY", "CD_POSTGRES_PASSWORD", "CD_ADMIN_PASSWORD"])
def test_nothing_starts_without_a_secret(tmp_path: Path, missing: str) -> None:
    file = tmp_path / ".env"
    write(file)
    kept = [line for line in file.read_text().splitlines() if not line.startswith(missing)]
    file.write_text("\n".join(kept))
    refused = config(file)
    assert refused.returncode != 0
    assert "make up" in refused.stderr


def test_only_the_workers_see_the_docker_socket(services: dict[str, Any]) -> None:
    holders = {name for name, service in services.items() if "docker.sock" in str(service.get("volumes"))}
    assert holders == {"worker-1", "worker-2"}


def test_every_service_that_stays_says_whether_it_is_well(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == _RUN_ONCE


def test_ports_are_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    published = [str(port) for service in services.values() for port in service.get("ports", [])]
    assert sorted(published) == ["127.0.0.1:5000:5000/tcp", "127.0.0.1:8080:8080/tcp"]


# Those who may hold each secret: docs/decisions/0012-build-users.md says why.
_DATABASE = {"migrate", "api-server", "scheduler", "dag-processor", "triggerer"}
_HOLDERS = {
    "CD_FERNET_KEY": _DATABASE,
    "CD_POSTGRES_PASSWORD": {*_DATABASE, "postgres"},
    "CD_JWT_SECRET": {"api-server", "scheduler"},
    "CD_API_SECRET_KEY": {"api-server"},
    "CD_ADMIN_PASSWORD": {"migrate"},
    "CD_REDIS_PASSWORD": {"redis", "scheduler", "worker-1", "worker-2"},
}


@pytest.mark.parametrize("secret", _HOLDERS)
def test_a_secret_is_with_those_who_need_it(services: dict[str, Any], tmp_path: Path, secret: str) -> None:
    value = values(tmp_path / ".env")[secret]
    # Wherever it may stand: in variables, arguments, files, labels, inside of an address.
    holders = {name for name, service in services.items() if value in str(service)}
    assert holders == _HOLDERS[secret]


@pytest.mark.parametrize("name", ["worker-1", "worker-2"])
def test_a_worker_cannot_reach_the_metadata_database(services: dict[str, Any], name: str) -> None:
    worker, database = services[name], services["postgres"]
    assert not set(worker["networks"]) & set(database["networks"])
    variables = worker["environment"]
    assert not {variable for variable in variables if "SQL_ALCHEMY_CONN" in variable or "FERNET" in variable}
    assert "postgres" not in str(variables)
    assert not {"secrets", "configs", "env_file"} & set(worker)


def test_builds_run_as_users_that_the_image_has(services: dict[str, Any]) -> None:
    group = services["worker-1"]["environment"]["AIRFLOW__CD__BUILD_GROUP"]
    image = (ROOT / "Dockerfile").read_text()
    assert re.search(rf"groupadd --gid \d{{5}} {group} ", image)
    assert f"--groups {group} " in image
    # Its user becomes one of them, and nobody else.
    rules = (ROOT / "compose" / "sudoers").read_text().splitlines()
    assert [rule for rule in rules if "NOPASSWD" in rule] == [f"airflow ALL=(%{group}) NOPASSWD: ALL"]
