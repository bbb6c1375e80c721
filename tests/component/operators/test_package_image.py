"""Releases that are images: built of a commit, pushed to a real registry, deployed by digest."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow.sdk.exceptions import AirflowFailException
from harness.waiting import wait_until
from tests.support.image_run import ImageRun
from tests.support.images import DOCKERFILE, Registry
from tests.support.signing_keys import new_key, private_pem
from tests.support.small_disk import mounted

from airflow_cd.exceptions import ArtifactError
from airflow_cd.model.release import Release
from airflow_cd.packaging.images import tag_of

PA55WORD = "$2b$04$QPmp1NjHCXruYbhlp5p8bOEy.oAumq.NI3xE5blk3IINvuoRtc/fW"  # made by htpasswd -B
INDEX = {"Accept": "application/vnd.oci.image.index.v1+json"}


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Any,
    registry: Registry,
) -> Iterator[ImageRun]:
    one = ImageRun(tmp_path, monkeypatch, engine, registry)
    try:
        yield one
    finally:
        one.close()


def test_a_commit_becomes_the_image_that_serves(run: ImageRun) -> None:
    service, sha = run.defined(), run.commit("one")
    package = run.package(service, sha)
    assert run.registry.holds(run.name, package["digest"]) == package["digest"]
    release = Release.model_validate_json(run.store.get_bytes(package["manifest"]))
    assert (release.image, release.digest) == (run.repository_of_images, package["digest"])
    assert run.registry.holds(run.name, tag_of(release.version)) == release.digest, "a tag for people"

    deployed = run.deploy(service)
    assert (run.served(), deployed["digest"]) == ("one", release.digest)
    image = run.engine.images.get(release.pull_spec)
    titles = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels.items()}
    assert (titles["revision"], titles["version"]) == (sha, release.version)
    assert titles["source"] == run.repository.url and titles["created"]
    assert image.attrs["Size"] == release.size


def test_packaging_again_gives_the_same_release(run: ImageRun) -> None:
    service, sha = run.defined(), run.commit("one")
    first = run.package(service, sha)
    assert run.package(service) == first
    run.registry.forget(run.name)
    again = run.package(service)
    assert run.registry.holds(run.name, again["digest"]) == again["digest"], "lost, so made again"


def test_every_commit_has_an_image_of_its_own(run: ImageRun) -> None:
    service = run.defined()
    first = run.package(service, run.commit("one"))
    second = run.package(service, run.commit("one", other="of the same program"))
    assert first["digest"] != second["digest"]
    run.deploy(service)
    current = run.record(service).current
    assert current is not None and current.release.digest == second["digest"]


def test_evidence_is_found_from_the_image(run: ImageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SIGN", signing_connection())
    service = run.defined(signing="sign")
    package = run.package(service, run.commit("one", **{"requirements.txt": "certifi==2025.8.3\n"}))
    url = f"http://{run.registry.address}/v2/{run.name}/manifests"
    tag = package["digest"].replace(":", "-")
    listed = httpx.get(f"{url}/{tag}", headers=INDEX, trust_env=False).json()["manifests"]
    assert {one["artifactType"] for one in listed} == {
        "application/vnd.in-toto+json",
        "application/vnd.cyclonedx+json",
        "application/vnd.dsse.envelope.v1+json",
    }
    run.package(service)
    assert httpx.get(f"{url}/{tag}", headers=INDEX, trust_env=False).json()["manifests"] == listed
    run.deploy(service)
    assert run.served() == "one"


def signing_connection() -> str:
    import json

    return json.dumps({"conn_type": "cd_signing_key", "extra": {"private_key": private_pem(new_key())}})


def test_somebody_elses_image_under_our_name_is_not_believed(
    run: ImageRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SIGN", signing_connection())
    service = run.defined(signing="sign")
    sha = run.commit("good")
    good = run.package(service, sha)
    evil = run.package(run.defined(), run.commit("evil"))
    changed = 0
    for ref in (run.store.root / "refs" / "images").glob("*.json"):
        if good["digest"] in (text := ref.read_text()):
            ref.write_text(text.replace(good["digest"], evil["digest"]))
            changed += 1
    assert changed == 1
    assert run.package(service, sha)["digest"] != evil["digest"]


def test_a_dockerfile_that_fails_says_how(run: ImageRun) -> None:
    service = run.defined()
    with pytest.raises(ArtifactError, match="building .* failed: .*returned a non-zero code: 3"):
        run.package(service, run.commit("one", DOCKERFILE + 'RUN ["python", "-c", "raise SystemExit(3)"]\n'))
    with pytest.raises(ArtifactError, match="there is no 'Containerfile' in the context"):
        run.package(run.defined(dockerfile="Containerfile"), run.commit("two"))


def test_arguments_and_stage_are_the_definitions(run: ImageRun) -> None:
    stages = "FROM python:3.11-slim AS first\nARG COLOUR\nENV COLOUR=$COLOUR\nCOPY app.py /app.py\n"
    last = 'CMD ["python", "-u", "/app.py"]\nFROM first AS second\nENV COLOUR=none\n'
    service = run.defined(stage="first", args={"COLOUR": "$(id); blue"})
    run.package(service, run.commit("one", stages + last))
    run.deploy(service)
    env = httpx.get(f"http://127.0.0.1:{run.port}/env", trust_env=False).json()
    assert env["COLOUR"] == "$(id); blue"


def test_layers_of_the_newest_release_are_used_again(run: ImageRun, caplog: pytest.LogCaptureFixture) -> None:
    dockerfile = DOCKERFILE.replace("COPY", "RUN python -c \"print('built in vain')\"\nCOPY", 1)
    service = run.defined()
    run.package(service, run.commit("one", dockerfile))
    # As on an engine that never built it.
    for image in run.engine.images.list(run.repository_of_images):
        run.engine.images.remove(image.id, force=True)
    caplog.clear()
    run.package(service, run.commit("two", dockerfile))
    assert "Using cache" in caplog.text
    assert "built in vain" not in caplog.text.replace("print('built in vain')", "")


class TestPassword:
    """A registry that asks for a login."""

    @pytest.fixture
    def guarded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any) -> Iterator[ImageRun]:
        users = tmp_path / "htpasswd"
        users.write_text(f"ada:{PA55WORD}\n")
        own = Registry(tmp_path / "registry", f"auth: {{htpasswd: {{realm: test, path: {users}}}}}")
        one = ImageRun(tmp_path, monkeypatch, engine, own)
        try:
            yield one
        finally:
            one.close()
            own.stop()

    def test_the_connections_login_is_used(
        self, guarded: ImageRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        service, sha = guarded.defined(conn_id="reg"), guarded.commit("one")
        monkeypatch.setenv("AIRFLOW_CONN_REG", f"docker://ada:wrong@{guarded.registry.address}")
        with pytest.raises(ArtifactError, match="refuses the login of connection 'reg'"):
            guarded.package(service, sha)
        monkeypatch.setenv("AIRFLOW_CONN_REG", f"docker://ada:pa55word@{guarded.registry.address}")
        package = guarded.package(service, sha)
        guarded.deploy(service)
        assert guarded.served() == "one"
        assert "pa55word" not in caplog.text + str(package)

    def test_a_connection_that_is_missing_is_named(self, guarded: ImageRun) -> None:
        with pytest.raises(ArtifactError, match="there is no connection 'nobody'"):
            guarded.package(guarded.defined(conn_id="nobody"), guarded.commit("one"))


class TestRegistryGone:
    """A registry that goes away."""

    @pytest.fixture
    def own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any) -> Iterator[ImageRun]:
        one = ImageRun(tmp_path, monkeypatch, engine, Registry(tmp_path / "registry"))
        try:
            yield one
        finally:
            one.close()
            one.registry.stop()

    def test_in_the_middle_of_a_push(self, own: ImageRun) -> None:
        service, sha = own.defined(), own.commit("one")
        uploads = own.registry.folder / "data/docker/registry/v2/repositories" / own.name / "_uploads"

        def kill() -> None:
            wait_until(
                lambda: uploads.is_dir() and any(uploads.iterdir()), "it is pushed", timeout=60, every=0.001
            )
            own.registry.stop(9)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ArtifactError, match="pushing .* failed|cannot be made"):
            own.package(service, sha)
        killer.join()
        own.registry.start()
        package = own.package(service)
        assert own.registry.holds(own.name, package["digest"]) == package["digest"]
        own.deploy(service)
        assert own.served() == "one"

    def test_for_want_of_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
        with mounted(tmp_path / "small", "400m") as disk:
            one = ImageRun(tmp_path, monkeypatch, engine, Registry(disk.path / "registry"))
            try:
                service, sha = one.defined(), one.commit("one")
                disk.fill(64 * 1024)
                with pytest.raises(ArtifactError, match="pushing .* failed"):
                    one.package(service, sha)
                disk.make_room()
                package = one.package(service)
                assert one.registry.holds(one.name, package["digest"]) == package["digest"]
                one.deploy(service)
                assert one.served() == "one"
            finally:
                one.close()
                one.registry.stop()

    def test_before_the_evidence_is_attached(self, own: ImageRun, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_cd.releases import images

        service, sha = own.defined(), own.commit("one")
        attach = images.attach_documents
        monkeypatch.setattr(images, "attach_documents", lambda *_: own.registry.stop() or attach(*_))  # type: ignore[func-returns-value]
        with pytest.raises(ArtifactError, match="cannot attach"):
            own.package(service, sha)
        monkeypatch.undo()
        monkeypatch.setenv("AIRFLOW__CD__DATA_DIR", str(own.data))
        own.registry.start()
        package = own.package(service)
        url = f"http://{own.registry.address}/v2/{own.name}/manifests/{package['digest'].replace(':', '-')}"
        assert len(httpx.get(url, headers=INDEX, trust_env=False).json()["manifests"]) == 1


def test_an_image_that_was_changed_in_the_registry_is_not_deployed(run: ImageRun) -> None:
    service = run.defined()
    run.package(service, run.commit("one"))
    run.deploy(service)
    two = run.package(service, run.commit("two"))
    run.registry.spoil(run.name, two["digest"])
    for image in run.engine.images.list(run.repository_of_images):
        if f"{run.repository_of_images}@{two['digest']}" in image.attrs["RepoDigests"]:
            run.engine.images.remove(image.id, force=True)
    with pytest.raises(AirflowFailException, match=f"{two['digest']} cannot be pulled"):
        run.deploy(service)
    assert run.served() == "one"


def test_making_images_loads_docker_only_when_it_is_done() -> None:
    code = "import airflow_cd.operators.package, sys; assert 'docker' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
