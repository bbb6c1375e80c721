"""The example services and the example services file do what the demonstration and the README rely on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.component import Component, clean_environment
from harness.ports import any_free
from harness.waiting import wait_until
from tests.support.requirements import require

from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.model.junit import parse_junit
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.packaging.archive import pack
from airflow_cd.packaging.manifests import render

ROOT = Path(__file__).parents[2]
NAMES = ("hello", "shout")


@pytest.fixture(params=NAMES)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copy_of(request.param, tmp_path)


@pytest.fixture
def bad_shout(tmp_path: Path) -> Path:
    tree = copy_of("shout", tmp_path)
    # Outside a repository `git apply` would look for one further up, and skip files that are not in it.
    outside = {**clean_environment({}), "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    patch = ROOT / "demo" / "shout_suffix.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=tree, env=outside, check=True)
    return tree


def copy_of(name: str, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name, ignore=ignored))


def run_tests(tree: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-q", "--junitxml=report.xml"]
    env = clean_environment({"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    return subprocess.run(argv, cwd=tree, env=env, capture_output=True, text=True, timeout=60)


@contextmanager
def serving(tree: Path, tmp_path: Path, **env: str) -> Iterator[httpx.Client]:
    """Run the service and give a client for it."""
    with started(tree, tmp_path, **env) as (_, client):
        yield client


@contextmanager
def started(tree: Path, tmp_path: Path, **env: str) -> Iterator[tuple[Component, httpx.Client]]:
    port = any_free()[0]
    environment = clean_environment({"PORT": str(port), "CD_VERSION": "1.2.3", **env})
    argv = [sys.executable, str(tree / "src" / "app.py")]
    component = Component("app", argv, environment, tmp_path / "app.log")
    component.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            wait_until(lambda: answers(client), "the example answers", timeout=20, explain=component.tail)
            yield component, client
    finally:
        component.stop()


def answers(client: httpx.Client) -> bool:
    try:
        client.get("/")
    except httpx.TransportError:
        return False
    return True


def test_its_tests_pass_and_are_counted(example: Path) -> None:
    ran = run_tests(example)
    assert ran.returncode == 0, ran.stdout
    totals = parse_junit((example / "report.xml").read_bytes())
    assert (totals.total, totals.passed) == (2, 2)


def test_it_serves_its_version_on_one_connection(example: Path, tmp_path: Path) -> None:
    with serving(example, tmp_path, CD_ENVIRONMENT="staging") as client:
        page, health = client.get("/Ada%20L"), client.get("/healthz")
    assert (page.status_code, health.status_code, page.http_version) == (200, 200, "HTTP/1.1")
    assert "ada l" in page.text.lower()
    assert f"{example.name} 1.2.3 in staging" in page.text
    assert page.headers["X-Version"] == "1.2.3"
    assert "connection" not in health.headers  # kept alive


def test_the_bad_commit_passes_its_tests(bad_shout: Path) -> None:
    ran = run_tests(bad_shout)
    assert ran.returncode == 0, ran.stdout


def test_the_bad_commit_works_only_where_its_setting_is(bad_shout: Path, tmp_path: Path) -> None:
    with serving(bad_shout, tmp_path, SHOUT_SUFFIX=" (staging)") as staging:
        assert staging.get("/healthz").status_code == 200
        assert staging.get("/hey").text.startswith("HEY! (staging)")
    with serving(bad_shout, tmp_path) as production:
        assert production.get("/healthz").status_code == 500
        assert "SHOUT_SUFFIX" in production.get("/").text


def test_the_services_file_fits_the_examples(tmp_path: Path) -> None:
    definitions = load_services(ROOT / "dags" / "services.yaml")
    assert definitions.errors == ()
    assert {s.name: s.pipeline for s in definitions.services} == {"hello": "delivery", "shout": "deployment"}
    for service in definitions.services:
        tree = copy_of(service.name, tmp_path)
        chosen = service.package.archive
        names = pack(tree, tmp_path / f"{service.name}.tar.gz", include=chosen.include)
        assert {"src/app.py", "requirements.txt"} <= set(names)
        for environment in service.environments:
            assert (tree / environment.target.local.command[-1]).is_file()  # type: ignore[union-attr]


def manifests_of_greet(tmp_path: Path) -> list[dict[str, Any]]:
    image, digest = "registry.example/shop/greet", f"sha256:{'0' * 64}"
    return render(copy_of("greet", tmp_path), "k8s", image=image, digest=digest)


def test_the_manifests_lose_no_request_while_releases_change(tmp_path: Path) -> None:
    deployment, service = manifests_of_greet(tmp_path)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert 0 < waits < pod["terminationGracePeriodSeconds"]
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_who_keeps_a_connection_is_told_of_the_end(tmp_path: Path) -> None:
    with started(copy_of("greet", tmp_path), tmp_path) as (app, client):
        before = client.get("/healthz").headers
        app.send(signal.SIGTERM)
        wait_until(
            lambda: client.get("/healthz").headers.get("connection") == "close", "it says so", timeout=2
        )
        wait_until(lambda: app.exit_code == 0, "it ends", timeout=10)
    assert "connection" not in before


def test_a_cluster_takes_the_manifests(tmp_path: Path, cluster: NamespaceClient) -> None:
    files = tmp_path / "objects.json"
    files.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests_of_greet(tmp_path)}))
    require(shutil.which("kubectl"), "needs kubectl")
    argv = [
        "kubectl",
        "apply",
        "--server-side",
        "--dry-run=server",
        "-n",
        cluster.namespace,
        "-f",
        str(files),
    ]
    asked = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert asked.returncode == 0, asked.stderr
    assert "deployment.apps/greet" in asked.stdout and "service/greet" in asked.stdout


def test_nothing_of_airflow_reaches_what_the_demonstration_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setitem(os.environ, "GIT_DIR", "/elsewhere")
    assert not {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_HOME", "GIT_DIR"} & clean_environment({}).keys()
