"""Pipelines and trains record what they use: all of it, and before anybody could take it away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.local_run import LocalRun, local_run
from tests.support.signing_keys import connect, new_key, private_pem

from airflow_cd.model.retention import Use
from airflow_cd.releases.uses import recorded_uses
from airflow_cd.trains.select import SelectReleaseOperator, make_ready


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    with local_run(tmp_path, monkeypatch) as made:
        yield made


def uses(run: LocalRun) -> dict[tuple[str, str], Use]:
    return {(use.kind, use.run_id): use for _, use in recorded_uses(run.store)}


def test_a_pipeline_uses_its_workspace_and_its_release(run: LocalRun) -> None:
    service = run.service()
    ref = run.package(service, run.commit("first"))
    found = uses(run)
    workspace, release = found["workspace", "manual__1"], found["release", "manual__1"]
    assert workspace.blobs == (run.xcoms["build"]["workspace"],)
    assert workspace.name == run.xcoms["build"]["build"] and workspace.revision == ref["revision"]
    assert {ref["digest"], ref["manifest"]} < set(release.blobs)
    # Nothing that was stored is left without a name.
    assert {one.name for one in run.store.blobs()} == {*workspace.blobs, *release.blobs}
    run.package(service)  # a retry
    assert len(uses(run)) == 2 and len(list(run.store.refs("uses"))) == 2


def test_a_signed_release_uses_its_signatures(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "signing", private_key=private_pem(new_key()))
    ref = run.package(run.service(signing="signing"), run.commit("first"))
    used = {digest for use in uses(run).values() for digest in use.blobs}
    assert set(ref["envelopes"].values()) < used == {one.name for one in run.store.blobs()}


def test_a_build_that_is_used_again_is_used_from_then_on(run: LocalRun) -> None:
    service, sha = run.service(), run.commit("first")
    workspace = run.build(service, sha)["workspace"]
    stored = run.store.look("blob", workspace)
    assert stored is not None and run.store.discard(stored, "hello", datetime.now(timezone.utc))
    run.run_id = "manual__2"
    assert run.build(service, sha) == {**run.xcoms["build"], "reused": True, "workspace": workspace}
    after = run.store.look("blob", workspace)
    assert after is not None and after.changed > stored.changed
    assert uses(run)["workspace", "manual__2"].blobs == (workspace,)


def test_a_train_uses_what_is_on_board(run: LocalRun) -> None:
    service = run.service().model_copy(update={"train": "nightly"})
    ref = run.package(service, run.commit("first"))
    from airflow_cd.model.release import ReleaseRef

    make_ready(service, ReleaseRef.model_validate(ref))
    train = SimpleNamespace(dag_id="train_nightly", run_id="scheduled__1")
    context: Any = {**run.context, "dag_run": train, "params": {}}
    SelectReleaseOperator(task_id="board", service=service).execute(context)
    use = uses(run)["release", "scheduled__1"]
    assert use.dag_id == "train_nightly" and use.blobs == uses(run)["release", "manual__1"].blobs
    assert datetime.now(timezone.utc) - use.at < timedelta(minutes=1)
