"""What `build` and `package` sign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException
from tests.support.local_run import LocalRun, local_run
from tests.support.signing_keys import connect, new_key, private_pem, public_pem

from airflow_cd.hooks.signing import SigningKeyHook
from airflow_cd.packaging.provenance import MANIFEST, STATEMENT, verify


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    connect(monkeypatch, "ours", private_key=private_pem(new_key()))
    with local_run(tmp_path, monkeypatch) as one:
        yield one


def test_manifest_and_statement_are_signed(run: LocalRun) -> None:
    ref = run.package(run.service("ours"), run.commit("one"))
    keys = [SigningKeyHook("ours").public_key()]
    manifest = verify(run.store.get_bytes(ref["envelopes"]["manifest"]), MANIFEST, keys).payload
    assert manifest == run.store.get_bytes(ref["manifest"])
    release = json.loads(manifest)
    assert (release["digest"], release["service"]) == (ref["digest"], "hello")
    statement = verify(run.store.get_bytes(ref["envelopes"]["provenance"]), STATEMENT, keys).payload
    assert statement == run.store.get_bytes(release["provenance"])
    (subject,) = json.loads(statement)["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == ref["digest"]
    members = json.loads(run.store.get_bytes(release["contents"]))
    assert set(members) == {"src/app.py", "src/page.html"}


def test_packaging_again_gives_the_same_references(run: LocalRun) -> None:
    service, sha = run.service("ours"), run.commit("one")
    first = run.package(service, sha)
    assert run.package(service) == first
    # However much later: the statement says when the run began, not when its task did.
    release = json.loads(run.store.get_bytes(first["manifest"]))
    metadata = json.loads(run.store.get_bytes(release["provenance"]))["predicate"]["runDetails"]["metadata"]
    assert metadata["startedOn"] == "2026-01-02T00:00:00Z"


def test_signing_that_is_switched_on_later_signs_what_is_packaged_again(run: LocalRun) -> None:
    sha = run.commit("one")
    unsigned = run.package(run.service(), sha)
    assert unsigned["envelopes"] is None
    signed = run.package(run.service("ours"), sha)
    assert signed["envelopes"] is not None
    assert {**signed, "envelopes": None} == unsigned


@pytest.mark.parametrize("task", ["build", "package"])
def test_no_key_no_release(run: LocalRun, monkeypatch: pytest.MonkeyPatch, task: str) -> None:
    sha = run.commit("one")
    run.build(run.service(), sha)
    connect(monkeypatch, "public_only", public_key=public_pem(new_key()))
    for conn_id, says in (("nowhere", "no connection 'nowhere'"), ("public_only", "no private key")):
        with pytest.raises(AirflowFailException, match=f"hello is to be signed, but .*{says}"):
            run.build(run.service(conn_id), sha) if task == "build" else run.package(run.service(conn_id))


def test_a_build_is_used_again_when_this_key_signed_it(run: LocalRun) -> None:
    service, sha = run.service("ours"), run.commit("one")
    assert run.build(service, sha)["reused"] is False
    assert run.build(service, sha)["reused"] is True


def test_a_build_that_somebody_put_into_the_store_is_not_used(
    run: LocalRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, sha = run.service("ours"), run.commit("one")
    honest = run.build(service, sha)
    name = f"builds/{honest['build']}"
    reference = run.store.get_ref(name)
    assert reference is not None
    evil = run.build(service, run.commit("evil"))["workspace"]
    for envelope in (reference["envelope"], "", None):
        run.store.put_ref(name, {**reference, "workspace": evil, "envelope": envelope})
        again = run.build(service, sha)
        assert (again["reused"], again["workspace"]) == (False, honest["workspace"])
    connect(monkeypatch, "theirs", private_key=private_pem(new_key()))
    assert run.build(run.service("theirs"), sha)["reused"] is False
