"""``airflow cd approve`` on a running Airflow: the right release, or a sentence that says why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from subprocess import CompletedProcess

import jwt
import pytest
from harness.airflow import RunningAirflow
from harness.ports import any_free
from tests.integration.deciding import APPROVE, is_asking, parked
from tests.integration.services import TestService

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive]

MakeService = Callable[..., TestService]


def decide(
    airflow: RunningAirflow, what: str, name: str, *options: str, user: str | None = "bob", **env: str
) -> CompletedProcess[str]:
    """Run the command as a person does. :param user: who logs in; ``None`` uses a token"""
    if user is not None:
        options += ("--user", user)
        env["AIRFLOW_CD_PASSWORD"] = airflow.password(user)
    if "--api-url" not in options:
        options += ("--api-url", airflow.url)
    return airflow.run("cd", what, name, *options, **env)  # type: ignore[arg-type]


def refused(done: CompletedProcess[str]) -> str:
    """Return the one sentence that a refused command says."""
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_of_two_that_wait_the_named_one_is_meant(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"approvers": ["bob"]})
    old, old_sha = parked(hello.run()), hello.head
    new_sha = hello.commit("second")
    new = parked(hello.run())
    for run in (old, new):
        airflow.wait_until_noted(run.run_id, APPROVE)

    ambiguous = decide(airflow, "approve", hello.name)
    assert ambiguous.returncode == 1
    assert "2 releases wait; say which one" in ambiguous.stderr
    for run, sha in ((old, old_sha), (new, new_sha)):
        assert f"--run-id {run.run_id}   {sha[:8]}" in ambiguous.stderr
        assert is_asking(run)

    done = decide(airflow, "reject", hello.name, "--run-id", old_sha[:10], "--reason", "not this one")
    assert done.returncode == 0, done.stderr
    old.wait_for("failed")
    assert "rejected by bob: not this one" in old.log(APPROVE)
    assert is_asking(new)

    # The one that is left needs no name; but a name that is not its own is not it.
    assert "is called" in decide(airflow, "approve", hello.name, "--run-id", old_sha[:10]).stderr
    package = new.xcom("package")
    assert isinstance(package, dict)
    done = decide(airflow, "approve", hello.name, "--run-id", package["digest"][:20])
    assert done.returncode == 0, done.stderr
    new.wait_for("success")
    assert hello.served() == "second"


def test_every_refusal_says_what_to_do(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service(approval={"approvers": ["bob"]})
    assert "No release" in refused(decide(airflow, "approve", hello.name))
    unknown = refused(decide(airflow, "approve", "nosuch"))
    assert "no service 'nosuch'" in unknown and "airflow cd status" in unknown
    run = parked(hello.run())
    stranger = refused(decide(airflow, "approve", hello.name, user="eve"))
    assert "403" in stranger and "bob may" in stranger

    (port,) = any_free(1)
    down = refused(decide(airflow, "approve", hello.name, "--api-url", f"http://127.0.0.1:{port}"))
    assert "does not answer" in down and "--api-url" in down
    assert "AIRFLOW_CD_TOKEN" in refused(decide(airflow, "approve", hello.name, user=None))
    for token in ("garbage", expired_token(airflow)):
        old = refused(decide(airflow, "approve", hello.name, user=None, AIRFLOW_CD_TOKEN=token))
        assert "does not accept the token" in old and "AIRFLOW_CD_TOKEN" in old

    airflow.api.pause(hello.dag_id)
    assert f"airflow dags unpause {hello.dag_id}" in refused(decide(airflow, "approve", hello.name))
    airflow.api.unpause(hello.dag_id)
    assert is_asking(run)


def test_who_comes_second_is_told(
    service: MakeService, airflow: RunningAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person answers between the list and the answer: the command's own two steps, and one in between."""
    from airflow_cd.cli import decide as command
    from airflow_cd.cli.api import RefusedError

    hello = service(approval={"approvers": ["bob"]})
    run = parked(hello.run())
    airflow.wait_until_noted(run.run_id, APPROVE)
    (question,) = hello.airflow.api.get(f"/dags/{hello.dag_id}/dagRuns/~/hitlDetails")["hitl_details"]
    run.answer(APPROVE, "Reject", airflow.as_user("bob"))

    with pytest.raises(SystemExit) as error:
        with logged_in_as(airflow, "bob", monkeypatch) as api:
            command.answer_question(api, question, "Approve", "")
    assert not isinstance(error.value, RefusedError)
    assert "Already answered: Reject, by bob" in str(error.value)
    run.wait_for("failed")
    assert hello.record().current is None


def logged_in_as(airflow: RunningAirflow, user: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    from argparse import Namespace

    from airflow_cd.cli.api import logged_in

    monkeypatch.setenv("AIRFLOW_CD_PASSWORD", airflow.password(user))
    return logged_in(Namespace(user=user, api_url=airflow.url))


def expired_token(airflow: RunningAirflow) -> str:
    """Return a token of bob's that was valid until a minute ago."""
    body = {"username": "bob", "password": airflow.password("bob")}
    token = airflow.api.request("POST", "/auth/token", json=body).json()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    secret = airflow.env["AIRFLOW__API_AUTH__JWT_SECRET"]
    header = jwt.get_unverified_header(token)
    return jwt.encode({**claims, "exp": int(time.time()) - 60}, secret, algorithm=header["alg"])
