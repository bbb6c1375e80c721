"""``self_approval: false``: nobody lets their own work in, whatever git and the auth manager say."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from tests.support.local_run import LocalRun, local_run
from tests.unit.operators.test_approval_binding import (
    Questions,
    ask,
    context_of,
    delivered,
    deploy,
    questions,
)

from airflow_cd.exceptions import SourceError
from airflow_cd.model.decision_requests import ABORT, GO_ON
from airflow_cd.model.release import ReleaseRef
from airflow_cd.model.service import Service
from airflow_cd.operators.rollouts import RolloutFollower
from airflow_cd.releases import authors
from airflow_cd.releases.adapters import open_target
from airflow_cd.releases.run import read_release
from airflow_cd.sensors.approval import ApprovalSensor

__all__ = ["questions"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, questions: Questions) -> Iterator[LocalRun]:  # noqa: F811
    with local_run(tmp_path, monkeypatch) as one:
        yield one


def answered(run: LocalRun, service: Service, asked: dict[str, Any], name: str, id_: str = "") -> Any:
    sensor = ApprovalSensor(task_id="approve", service=service, environment="production")
    event = {
        "chosen_options": ["Approve"],
        "responded_by_user": {"id": id_ or name, "name": name},
        "responded_at": "2026-01-02T00:00:00Z",
        "params_input": {},
    }
    return sensor.execute_complete(context_of(run), event, **asked)


def refused(run: LocalRun, service: Service, asked: dict[str, Any], name: str, id_: str = "") -> None:
    """Make sure that the answer does not count, neither when it is given nor when the task is marked then."""
    with pytest.raises(TaskAwaitingInput):
        answered(run, service, asked, name, id_)
    with pytest.raises(AirflowFailException, match="override: deny"):
        deploy(run, service)


def by(run: LocalRun, text: str, *authors: str, message: str = "change") -> str:
    """Commit once for each of the authors, and return the last commit."""
    for n, author in enumerate(authors):
        run.repository.commit(
            {f"src/{text}-{n}": text}, message, author=author, email=f"{author}@example.org"
        )
    return run.repository.git("rev-parse", "HEAD").strip()


def next_run(run: LocalRun, questions: Questions) -> None:  # noqa: F811
    run.run_id, questions.first = f"{run.run_id}.next", None


def in_production(run: LocalRun, service: Service, questions: Questions) -> None:  # noqa: F811
    """Deploy a first release, and begin the next run."""
    run.package(service, run.commit("one"))
    answered(run, service, ask(run, service), "zoe")
    deploy(run, service)
    next_run(run, questions)


def test_fab_users_are_known_by_name_although_their_ids_are_numbers(run: LocalRun) -> None:
    service = delivered(run, approval={"approvers": ["alice", "bob"], "override": "deny"})
    run.package(service, run.commit("one"))
    asked = ask(run, service)
    refused(run, service, asked, "eve", "7")
    answered(run, service, asked, "alice", "5")
    deploy(run, service)
    current = run.record(service).current
    assert current is not None and current.approval == "approved by alice"


def test_an_id_can_be_listed_too(run: LocalRun) -> None:
    service = delivered(run, approval={"approvers": ["5"], "override": "deny"})
    run.package(service, run.commit("one"))
    answered(run, service, ask(run, service), "alice", "5")
    deploy(run, service)
    assert run.served() == "one"


def test_a_program_can_be_listed_by_its_id_too(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CD__MACHINE_USERS", "ci-bot")
    service = delivered(run, approval={"approvers": ["6"], "override": "deny"})
    run.package(service, run.commit("one"))
    answered(run, service, ask(run, service), "ci-bot", "6")
    deploy(run, service)
    assert run.served() == "one"


@pytest.mark.parametrize("listed", ["ada", "5"], ids=["name", "id"])
def test_an_author_is_known_by_name_and_by_id(run: LocalRun, listed: str) -> None:
    service = delivered(run, approval={"identities": {"ada@example.org": listed}, "override": "deny"})
    run.package(service, run.commit("one"))
    refused(run, service, ask(run, service), "ada", "5")


def test_only_the_simple_auth_manager_is_told_who_may_answer(
    run: LocalRun,
    questions: Questions,
    monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    """It compares ids; with FAB's, which are numbers, Airflow would refuse alice."""
    service = delivered(run, approval={"approvers": ["alice"]})
    run.package(service, run.commit("one"))
    ask(run, service)
    assert [user.id for user in questions.first.assigned_users] == ["alice"]
    assert "count" not in questions.first.body
    questions.first = None
    fab = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", fab)
    ask(run, service)
    assert not questions.first.assigned_users
    # Airflow does not tell then either, whom it asks.
    assert questions.first.body.endswith("Only answers of these users count: alice.")


def test_authors_beyond_a_hundred_commits_count(run: LocalRun, questions: Questions) -> None:  # noqa: F811
    service = delivered(run)
    in_production(run, service, questions)
    by(run, "first", "bob")
    by(run, "more", *["carol"] * 105)
    run.package(service, by(run, "last", "carol"))
    asked = ask(run, service)
    refused(run, service, asked, "bob")
    answered(run, service, asked, "zoe")


@pytest.mark.parametrize(
    "trailer", ["Co-authored-by: Bob <bob@example.org>", "co-authored-by: <BOB@example.org>"]
)
def test_co_authors_count(run: LocalRun, questions: Questions, trailer: str) -> None:  # noqa: F811
    service = delivered(run)
    in_production(run, service, questions)
    by(run, "pair", "carol", message=f"work\n\n{trailer}\n")
    run.package(service, by(run, "last", "carol"))
    refused(run, service, ask(run, service), "bob")


def test_what_counts_is_what_production_runs_when_it_is_approved(
    run: LocalRun,
    questions: Questions,  # noqa: F811
) -> None:
    """Production goes back to an older release before the approval: it would bring bob's work once more."""
    service = delivered(run)
    in_production(run, service, questions)
    run.package(service, by(run, "two", "bob"))
    answered(run, service, ask(run, service), "zoe")
    deploy(run, service)
    next_run(run, questions)
    run.package(service, by(run, "three", "carol"))
    asked = ask(run, service)
    two = run.record(service).current
    assert two is not None
    open_target(service, service.production).rollback(bad=two.release.digest, actor="test")
    refused(run, service, asked, "bob")


def test_where_the_repository_cannot_be_read_nothing_is_deployed(
    run: LocalRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = delivered(run)
    run.package(service, run.commit("one"))
    asked = ask(run, service)

    def gone(*args: Any) -> Any:
        raise SourceError("the git host does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(authors, "open_source", gone)
        # The answer is kept, and nothing happens by it until the task can tell whose work this is.
        answered(run, service, asked, "zoe")
        with pytest.raises(SourceError):
            deploy(run, service)
        assert run.record(service).current is None
    deploy(run, service)
    assert run.served() == "one"


def test_an_answer_to_a_rollout_counts_only_while_its_authors_are_known(
    run: LocalRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No `deploy` looks again behind this answer."""
    service = delivered(run)
    run.package(service, run.commit("one"))
    release = read_release(service, ReleaseRef.model_validate(run.xcoms["package"]))
    rollout = SimpleNamespace(token="t", candidate=SimpleNamespace(release=release))
    answers: list[Any] = []
    target: Any = SimpleNamespace(
        record=lambda: SimpleNamespace(rollout=rollout, current=None),
        advance=lambda token, answer: answers.append(answer),
    )
    log: Any = logging.getLogger("task")
    follower = RolloutFollower(service, "production", log)
    event = {"responded_by_user": {"id": "bob", "name": "bob"}, "chosen_options": [GO_ON], "params_input": {}}

    def gone(*args: Any) -> Any:
        raise SourceError("the git host does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(authors, "open_source", gone)
        follower._answered(target, "t", event, "0/pause")
        assert not answers
        assert "the git host does not answer" in caplog.text
        follower._answered(target, "t", {**event, "chosen_options": [ABORT]}, "0/pause")
        assert [answer.promote for answer in answers] == [False]
    follower._answered(target, "t", event, "0/pause")
    assert [answer.promote for answer in answers] == [False, True]


def test_an_approval_that_is_too_old_allows_nothing(run: LocalRun) -> None:
    service = delivered(run, approval={"expires_after": "24h", "override": "deny"})
    run.package(service, run.commit("one"))
    answered(run, service, ask(run, service), "zoe")  # on 2 January
    with pytest.raises(AirflowFailException, match=r"by zoe is of 2026-01-02.*counts for .*clear"):
        deploy(run, service)
    assert run.record(service).current is None
