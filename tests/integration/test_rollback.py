"""Going back, on a running Airflow: by an alarm after the pipeline has ended, and by hand."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from harness.airflow import RunningAirflow
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.services import TestService

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
MONITOR = {"interval": "200ms", "failures": 2, "window": "10s", "bake_time": "1h"}
ROLLBACK = "production.rollback"


def release(service: TestService, text: str) -> str:
    """Take a commit that answers ``text`` through the whole pipeline, and return its SHA."""
    sha = service.commit(text)
    service.run().wait_for("success")
    assert service.served() == text
    return sha


def roll_back(service: TestService, **params: str) -> Run:
    return Run.triggered(service.airflow.api, f"{service.name}_rollback", params)


def alarm_run(service: TestService, number: int = 1) -> Run:
    """Wait for the run that the monitor's alarm starts."""
    dag_id, api = f"{service.name}_rollback", service.airflow.api
    runs = wait_until(
        lambda: found if len(found := api.dag_runs(dag_id)) >= number else None,
        f"{number} runs of {dag_id}",
        timeout=90,
    )
    return Run(api, dag_id, runs[0]["dag_run_id"])


def wait_until_monitored(service: TestService, generation: int) -> None:
    """Wait until the monitor has seen this generation healthy: what goes bad earlier is its pipeline's."""
    log = service.airflow.components["triggerer"].log
    words = f"{service.name} in production: failures of generation {generation} count now"
    wait_until(lambda: words in log.read_text(), words, timeout=60)


def test_a_release_that_goes_bad_after_its_pipeline_is_rolled_back(service: MakeService) -> None:
    hello = service("deployment", monitor=MONITOR)
    first = release(hello, "first")
    second = release(hello, "second")
    wait_until_monitored(hello, 2)
    hello.fall_ill("second")
    run = alarm_run(hello)
    run.wait_for("success")

    assert hello.served() == "first"
    record = hello.record()
    assert record.current is not None and record.hold is None
    assert record.current.release.revision.sha == first
    assert "bad samples within 10s, 2 are tolerated" in str(record.current.reason)
    assert "Rolled back and verified" in run.log(ROLLBACK)
    assert run.states() == {"staging.rollback": "skipped", ROLLBACK: "success"}

    deployed, again, back = hello.history()
    assert (deployed["kind"], again["kind"], back["kind"]) == ("deployed", "deployed", "rolled back")
    assert deployed["replaced"] is None
    assert (again["release"]["revision"], again["replaced"]["revision"]) == (second, first)
    assert again["lead_time"] > 0 and back["lead_time"] is None
    assert (back["release"]["revision"], back["replaced"]["revision"]) == (first, second)
    assert back["actor"] == f"{hello.name}_rollback/{run.run_id}"
    assert back["reason"] == record.current.reason

    # What was gone back to is not gone back from by itself: that would walk through all of history.
    wait_until_monitored(hello, 3)
    hello.fall_ill("first")
    helpless = alarm_run(hello, 2)
    helpless.wait_for("failed")
    assert "A person is needed" in helpless.log(ROLLBACK)
    assert hello.served() == "first"


def test_going_back_by_hand_holds_automatic_promotion(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service("deployment")
    shas = [release(hello, text) for text in ("first", "second", "third")]

    roll_back(hello, release=shas[0][:10], reason="prices are wrong").wait_for("success")
    assert hello.served() == "first"
    record = hello.record()
    assert record.hold is not None and (record.hold.by, record.hold.reason) == ("admin", "prices are wrong")
    assert hello.history()[-1]["reason"] == "by admin: prices are wrong"

    # A push is no person's decision about production.
    hello.watch("1s")
    sha = hello.commit("fourth")
    pushed = Run.of_commit(airflow.api, hello.dag_id, sha)
    pushed.wait_for("success")
    assert pushed.states()["production.deploy"] == "skipped"
    assert "held since admin rolled it back" in pushed.log("production.deploy")
    assert (hello.served("staging"), hello.served()) == ("fourth", "first")

    hello.run(sha).wait_for("success")
    assert hello.served() == "fourth"
    assert hello.record().hold is None


@pytest.mark.exhaustive
def test_the_release_to_go_back_to_is_picked_from_a_list(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service("deployment")
    shas = [release(hello, text) for text in ("first", "second", "third")]
    run = roll_back(hello, release="choose")
    run.wait_for_task(ROLLBACK, "awaiting_input")
    question = run.question(ROLLBACK)
    assert [option.rpartition("(")[2].rstrip(")") for option in question["options"]] == [
        *(shas[1][:8], shas[0][:8]),
        "Cancel",
    ]
    assert "say third" in question["body"]
    airflow.wait_until_noted(run.run_id, ROLLBACK)
    run.answer(ROLLBACK, question["options"][1], airflow.as_user("bob"))
    run.wait_for("success")
    assert hello.served() == "first"
    hold = hello.record().hold
    assert hold is not None and hold.by == "bob"


@pytest.mark.exhaustive
def test_nothing_is_rolled_back_that_was_not_meant(service: MakeService, airflow: RunningAirflow) -> None:
    hello = service("deployment")
    for text in ("first", "second"):
        release(hello, text)
    unknown = roll_back(hello, release="v9.9.9")
    unknown.wait_for("failed")
    assert "'v9.9.9' names no release" in unknown.log(ROLLBACK)

    waiting = roll_back(hello, release="choose")
    waiting.wait_for_task(ROLLBACK, "awaiting_input")
    release(hello, "third")
    airflow.wait_until_noted(waiting.run_id, ROLLBACK)
    waiting.answer(ROLLBACK, waiting.question(ROLLBACK)["options"][0])
    waiting.wait_for("success")
    assert waiting.states()[ROLLBACK] == "skipped"
    assert "by now, not sha256:" in waiting.log(ROLLBACK)
    assert hello.served() == "third"


def test_a_release_rolled_back_while_it_is_watched_fails_its_run(service: MakeService) -> None:
    hello = service("deployment")
    release(hello, "first")
    # More good samples than there is time for: the pipeline watches until it is stopped.
    hello.change_health(healthy_after=100_000)
    hello.commit("second")
    watched = hello.run()
    watched.wait_for_task("production.health", "deferred", timeout=120)
    hello.change_health(healthy_after=2)
    roll_back(hello).wait_for("success")
    hello.fall_ill("first")
    watched.wait_for("failed")
    assert "was rolled back in production by" in watched.log("production.health")
    assert "this run has nothing to roll back" in watched.log(ROLLBACK)
    assert hello.served() == "first"


@pytest.mark.exhaustive
def test_the_command_line_tells_what_runs_and_goes_back(
    service: MakeService, airflow: RunningAirflow
) -> None:
    hello = service(approval={"approvers": ["bob"]})
    login = ("--user", "bob", "--api-url", airflow.url)
    password = {"AIRFLOW_CD_PASSWORD": airflow.password("bob")}
    file = ("--file", str(airflow.dags_folder / f"{hello.name}.yaml"))

    def cd(*argv: str) -> str:
        done = airflow.run("cd", *argv, COLUMNS="200", **password)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    nothing = airflow.run("cd", "history", hello.name, *login, **password)  # type: ignore[arg-type]
    assert nothing.returncode != 0 and "No deployment" in nothing.stderr
    for text in ("first", "second"):
        hello.commit(text)
        run = hello.run()
        run.wait_for_task("production.approve", "awaiting_input", timeout=120)
        airflow.wait_until_noted(run.run_id, "production.approve")
        waiting = row(cd("status", hello.name, *file, *login), "production")
        assert waiting[-1] == "1", waiting
        run.answer("production.approve", "Approve", airflow.as_user("bob"))
        run.wait_for("success")
    assert row(cd("status", *file), "production")[3] == hello.head[:8]

    said = cd("rollback", hello.name, "--reason", "prices", *login)
    assert "runs" in said and "again, and is healthy" in said
    assert hello.served() == "first"
    assert "held by bob: prices" in cd("status", *file)

    told = [json.loads(line) for line in cd("history", hello.name, "--json", *login).splitlines()]
    production = [change for change in told if change["environment"] == "production"]
    assert [change["kind"] for change in production] == ["rolled back", "deployed", "deployed"]
    assert [change["approval"] for change in production] == ["approved by bob"] * 3
    assert (production[0]["user"], production[0]["reason"]) == ("bob", "by bob: prices")
    assert "rolled back" in cd("history", hello.name, "--environment", "production", *login)

    refused = airflow.run("cd", "rollback", hello.name, "--to", "v9", *login, **password)  # type: ignore[arg-type]
    assert refused.returncode != 0 and "'v9' names no release" in refused.stderr


def row(table: str, environment: str) -> list[str]:
    """Return the words of an environment's row."""
    return next(line.split() for line in table.splitlines() if f" {environment} " in line)
