"""Who decides where FabAuthManager keeps the users, as in docker-compose.yaml: by name, and by number."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from harness.api import AirflowApi
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.deciding import (
    APPROVE,
    DEPLOY,
    answer,
    is_asking,
    logs,
    parked,
    wait_until_noted,
)
from tests.integration.services import TestService, made
from tests.support.databases import fab_database_template, metadata_database
from tests.support.fab_airflow import FabAirflow
from tests.support.requirements import require

from airflow_cd.targets.local.target import root_of, shutdown

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.exhaustive,
    pytest.mark.xdist_group("fab"),
    pytest.mark.timeout(1200),
]

MakeService = Callable[..., TestService]
_USERS = dict.fromkeys(("alice", "bob", "eve", "robot"), "User")


@pytest.fixture(scope="module")
def fab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[FabAirflow]:
    is_installed = importlib.util.find_spec("airflow.providers.fab") is not None
    require(is_installed, "needs apache-airflow-providers-fab: `uv sync`")
    home = tmp_path_factory.mktemp("fab")
    settings = {"AIRFLOW__CD__MACHINE_USERS": "robot"}
    template = fab_database_template(pytestconfig.rootpath)
    try:
        with (
            metadata_database() as url,
            FabAirflow(
                home, users=_USERS, template=template, extra_config=settings, sql_alchemy_conn=url
            ) as running,
        ):
            yield running  # type: ignore[misc]
    finally:
        shutdown(root_of(home / "cd"))


@pytest.fixture
def service(fab: FabAirflow, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with made(TestService, fab, tmp_path, request.node.name) as make:
        yield make


def command(fab: FabAirflow, user: str, what: str, name: str, *options: str) -> CompletedProcess[str]:
    """Run ``airflow cd`` as a person does."""
    login = ("--api-url", fab.url, "--user", user)
    return fab.run("cd", what, name, *login, *options, AIRFLOW_CD_PASSWORD=fab.password(user))


def test_approvers_and_authors_are_known_by_name(service: MakeService, fab: FabAirflow) -> None:
    hello = service(approval={"approvers": ["alice", "bob"], "self_approval": False})
    run = parked(hello.run())
    # Airflow compares ids, so it does not get the names of who may answer, and takes every user's answer.
    question = run.question(APPROVE)
    assert question["assigned_users"] == []
    assert question["body"].endswith("Only answers of these users count: alice, bob.")
    does_not_count(run, "Approve", fab.as_user("eve"), "'eve' is not among the approvers (alice, bob)")
    does_not_count(run, "Reject", fab.as_user("eve"), "'eve' is not among the approvers (alice, bob)")
    answer(run, "Approve", fab.as_user("alice"))
    run.wait_for("success")
    number = fab.user_id("alice")
    assert number.isdigit()
    assert run.question(APPROVE)["responded_by_user"] == {"id": number, "name": "alice"}
    decision = run.xcom(APPROVE)
    assert isinstance(decision, dict) and (decision["by"], decision["by_id"]) == ("alice", number)
    assert approval_of(hello) == "approved by alice"

    hello.commit("by alice", author="Alice", email="Alice@example.org")
    hello.commit("by ada on top")
    run = parked(hello.run())
    does_not_count(run, "Approve", fab.as_user("alice"), "'alice' is the author of a commit")
    done = command(fab, "bob", "approve", hello.name, "--reason", "looks good")
    assert done.returncode == 0, done.stderr
    run.wait_for("success")
    assert (hello.served(), approval_of(hello)) == ("by ada on top", "approved by bob")


def test_approvers_and_authors_are_known_by_number(service: MakeService, fab: FabAirflow) -> None:
    alice, bob = fab.user_id("alice"), fab.user_id("bob")
    hello = service(approval={"approvers": [alice, bob], "identities": {"ada@example.org": bob}})
    run = parked(hello.run())
    does_not_count(run, "Approve", fab.as_user("bob"), "'bob' is the author of a commit")
    answer(run, "Approve", fab.as_user("alice"))
    run.wait_for("success")
    assert approval_of(hello) == "approved by alice"


def test_an_approver_of_windows_is_known_by_name(service: MakeService, fab: FabAirflow) -> None:
    now = datetime.now(timezone.utc)
    frozen = {
        "start": f"{now - timedelta(days=1):%Y-%m-%d}",
        "end": f"{now + timedelta(days=3):%Y-%m-%d}",
        "reason": "the fair",
        "environments": ["production"],
    }
    hello = service("deployment", freezes=[frozen], window_approvers=["bob"])
    run = hello.run()
    run.wait_for_task(DEPLOY, "awaiting_input", timeout=120)
    wait_until_noted(run, DEPLOY)
    does_not_count(run, "Deploy now", fab.as_user("eve"), "'eve' is not among the window_approvers", DEPLOY)
    wait_until_noted(run, DEPLOY)
    done = command(fab, "bob", "override", hello.name, "--reason", "customers are waiting")
    assert done.returncode == 0, done.stderr
    run.wait_for("success", timeout=180)
    assert approval_of(hello) == "window override by bob: customers are waiting"


def test_who_starts_a_run_is_known_by_name(service: MakeService, fab: FabAirflow) -> None:
    hello = service("deployment")
    hello.run().wait_for("success")
    hello.commit("second")
    started_by(fab, "alice", hello).wait_for("success")
    done = command(fab, "bob", "rollback", hello.name, "--reason", "it is slow")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: hello.record().hold, "production is held", timeout=120)
    hold = hello.record().hold
    assert hold is not None and hold.by == "bob"

    by_program = started_by(fab, "robot", hello)
    by_program.wait_for_task(DEPLOY, "skipped", timeout=120)
    assert "trigger the DAG by hand to try it again" in by_program.log(DEPLOY)
    started_by(fab, "alice", hello).wait_for("success")
    assert hello.served() == "second" and hello.record().hold is None


def started_by(fab: FabAirflow, user: str, hello: TestService) -> Run:
    run = Run.triggered(fab.as_user(user), hello.dag_id, {"revision": hello.head})
    assert run.api.dag_run(run.dag_id, run.run_id)["triggering_user_name"] == user
    return run


def does_not_count(run: Run, option: str, api: AirflowApi, why: str, task_id: str = APPROVE) -> None:
    """Answer: Airflow takes it, and the task says why it asks again."""
    before = logs(run, task_id).count(why)
    run.answer(task_id, option, api)
    wait_until(
        lambda: is_asking(run, task_id) and logs(run, task_id).count(why) > before,
        f"it asks again, since {why}",
        timeout=90,
        every=1,
        explain=run.explain,
    )
    wait_until_noted(run, task_id)


def approval_of(service: TestService) -> str | None:
    """Return what production's record says about who let the release in."""
    current = service.record().current
    assert current is not None
    return current.approval
