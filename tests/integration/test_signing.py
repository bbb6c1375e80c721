"""Signatures on a running Airflow: what was not signed, or was changed since, stays out of production."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from securesystemslib.signer import SSlibKey
from tests.integration.services import TestService
from tests.support.local_run import flip
from tests.support.signing_keys import new_key, private_pem, public_pem

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
APPROVE, DEPLOY = "production.approve", "production.deploy"
SIGNING = {"conn_id": "release_signing"}
VERIFY = {"conn_ids": ["release_public"]}


@pytest.fixture
def key(airflow: RunningAirflow) -> Iterator[Any]:
    """The key in the connection ``release_signing``; ``release_public`` holds its public half only."""
    key = new_key()
    connections = {
        "release_signing": {"private_key": private_pem(key)},
        "release_public": {"public_key": public_pem(key)},
        "other_signing": {"public_key": public_pem(new_key())},
    }
    for conn_id, extra in connections.items():
        body = {"connection_id": conn_id, "conn_type": "cd_signing_key", "extra": json.dumps(extra)}
        airflow.api.request("POST", "/api/v2/connections", json=body)
    yield key
    for conn_id in connections:
        airflow.api.request("DELETE", f"/api/v2/connections/{conn_id}")


def key_id(key: Any) -> str:
    return str(SSlibKey.from_crypto(key.public_key()).keyid)


def approved(run: Run) -> Run:
    """Wait for the question and mark it as answered: `deploy` is the next thing that looks at the release."""
    run.wait_for_task(APPROVE, "awaiting_input", timeout=120)
    run.mark(APPROVE, "success")
    return run


def again(run: Run, task_id: str = DEPLOY) -> None:
    """Clear a task with what follows it, and wait until it has started over."""

    def tries() -> int:
        return int(run.api.task_instances(run.dag_id, run.run_id)[task_id]["try_number"])

    before = tries()
    run.api.clear(run.dag_id, run.run_id, task_id, downstream=True)
    wait_until(lambda: tries() > before, f"{task_id} starts again", timeout=60, explain=run.explain)


def refused(run: Run) -> str:
    """Wait until production refused the release, and return what the log says."""
    run.wait_for("failed")
    states = run.states()
    assert (states[DEPLOY], states["production.rollback"]) == ("failed", "upstream_failed")
    return run.log(DEPLOY)


def test_a_signed_release_reaches_production(service: MakeService, airflow: RunningAirflow, key: Any) -> None:
    shout = service("deployment", signing=SIGNING, verify=VERIFY)
    run = shout.run()
    run.wait_for("success")
    assert shout.served() == "first"
    assert run.xcom(DEPLOY)["verified_by"] == key_id(key)
    assert run.xcom("staging.deploy")["verified_by"] is None
    assert f"signed by key {key_id(key)}" in run.log(DEPLOY)
    assert f"with key {key_id(key)}" in run.log("package")
    # The private key is nowhere but in the connection.
    secret = private_pem(key).splitlines()[1]
    began = [task_id for task_id, state in run.states().items() if state != "skipped"]
    shown = [run.log(task_id) for task_id in began] + [json.dumps(run.xcom("package"))]
    shown.append(json.dumps(airflow.api.get("/connections/release_signing")))
    assert not any(secret in text for text in shown)
    files = [path for path in (airflow.home / "cd").rglob("*") if path.is_file() and not path.is_symlink()]
    assert files and not any(secret.encode() in path.read_bytes() for path in files)


def test_an_unsigned_release_stays_out_until_it_is_signed(service: MakeService, key: Any) -> None:
    hello = service()
    approved(hello.run()).wait_for("success")
    run = hello.run(hello.commit("second"))
    run.wait_for_task(APPROVE, "awaiting_input", timeout=120)
    # Switched on while an unsigned release waits.
    hello.change(signing=SIGNING, verify=VERIFY)
    said = refused(approved(run))
    assert "is not signed, and production takes signed releases only" in said
    assert f"trigger the DAG with revision {hello.head}" in said
    assert hello.served() == "first"

    run = approved(hello.run())
    run.wait_for("success")
    assert hello.served() == "second"
    assert run.xcom(DEPLOY)["verified_by"] == key_id(key)


@pytest.mark.exhaustive
def test_only_the_listed_keys_count(service: MakeService, key: Any) -> None:
    shout = service("deployment", signing=SIGNING, verify={"conn_ids": ["other_signing"]})
    run = shout.run()
    assert f"signed by a key that is not listed: {key_id(key)}" in refused(run)
    shout.change(verify={"conn_ids": ["nowhere"]})
    again(run)
    assert "Airflow has no connection 'nowhere'" in refused(run)
    assert shout.record().current is None
    shout.change(verify={"conn_ids": ["other_signing", "release_public"]})
    again(run)
    run.wait_for("success")
    assert shout.served() == "first"


@pytest.mark.exhaustive
def test_a_key_that_cannot_sign_stops_the_build(service: MakeService, key: Any) -> None:
    shout = service("deployment", signing={"conn_id": "release_public"}, verify=VERIFY)
    run = shout.run()
    run.wait_for("failed")
    assert run.states()["build"] == "failed"
    assert "connection 'release_public' holds no private key" in run.log("build")


def test_a_byte_changed_after_the_approval_stops_the_deployment(
    service: MakeService, airflow: RunningAirflow, key: Any
) -> None:
    hello = service(signing=SIGNING, verify=VERIFY)
    approved(hello.run()).wait_for("success")
    run = hello.run(hello.commit("second"))
    run.wait_for_task(APPROVE, "awaiting_input", timeout=120)
    ref = run.xcom("package")
    release = json.loads(blob(airflow, ref["manifest"]).read_bytes())
    documents = {
        ref["digest"]: "'src/",
        ref["manifest"]: "the manifest of",
        release["provenance"]: "the provenance of",
        ref["envelopes"]["manifest"]: "the signature of the manifest of",
        ref["envelopes"]["provenance"]: "the signature of the provenance of",
    }
    for n, (digest, name) in enumerate(documents.items()):
        content = blob(airflow, digest).read_bytes()
        flip(blob(airflow, digest))
        if n == 0:
            approved(run)
        else:
            again(run)
        said = refused(run)
        assert digest in said and name in said, said
        assert hello.served() == "first"
        blob(airflow, digest).write_bytes(content)
    again(run)
    run.wait_for("success")
    assert hello.served() == "second"


def blob(airflow: RunningAirflow, digest: str) -> Path:
    """Return the file in the artifact store that holds a digest."""
    value = digest.removeprefix("sha256:")
    return airflow.home / "cd" / "artifacts" / "blobs" / "sha256" / value[:2] / value[2:]
