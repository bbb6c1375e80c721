"""Commands and an API server that loses requests or answers: they end well, and do nothing twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from tests.unit.cli.pretended_airflow import (
    LOCKED,
    SUCCESS,
    Answer,
    Fault,
    PretendedAirflow,
    answers,
    pretended_airflow,
    unanswered,
    unheard,
)
from tests.unit.cli.typed import typed

from airflow_cd.cli import api, rollback
from airflow_cd.cli.api import Patience

DETAILS = "taskInstances/[^/]+/-1/hitlDetails"
RUNS = "/dagRuns"
XCOMS = "/xcomEntries"
BUSY = [
    pytest.param(unheard, "closed the connection", id="hung up"),
    pytest.param(answers(502), "answered with HTTP 502", id="502"),
    pytest.param(answers(503), "answered with HTTP 503", id="503"),
    pytest.param(answers(504), "answered with HTTP 504", id="504"),
    pytest.param(answers(500, LOCKED), "answered with HTTP 500", id="database"),
    pytest.param(answers(500, {"detail": "database is locked"}), "answered with HTTP 500", id="locked"),
    pytest.param(answers(500, "Internal Server Error"), "answered with HTTP 500", id="500"),
]
LOST = [
    pytest.param(unheard, id="not arrived"),
    pytest.param(unanswered, id="arrived"),
    pytest.param(answers(504, done=True), id="arrived, 504"),
    pytest.param(answers(500, LOCKED), id="rolled back"),
]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once, and look at once whether a run is over."""
    monkeypatch.setattr(api, "PATIENCE", Patience(starts=(0, 0, 0, 0)))
    monkeypatch.setattr(rollback, "_POLL_SECONDS", 0)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedAirflow]:
    monkeypatch.setenv("AIRFLOW_CD_PASSWORD", "right")
    with pretended_airflow() as server:
        yield server


def as_bob(airflow: PretendedAirflow, name: str, *arguments: str) -> None:
    typed(name, *arguments, "--user", "bob", "--api-url", airflow.url)


def refusal(airflow: PretendedAirflow, name: str, *arguments: str) -> str:
    """Return why the command ends with exit code 1."""
    with pytest.raises(SystemExit) as ended:
        as_bob(airflow, name, *arguments)
    assert isinstance(ended.value.code, str)
    return ended.value.code


def approval(airflow: PretendedAirflow) -> dict:
    return airflow.ask("hello_delivery", "production.approve", "Approve", "Reject")


# Reading


@pytest.mark.parametrize(("fault", "said"), BUSY)
def test_a_lost_request_is_repeated_and_the_user_sees_it(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], fault: Fault, said: str
) -> None:
    approval(airflow)
    airflow.fails("GET", "/dags/hello_delivery", fault)
    as_bob(airflow, "approve", "hello")
    out, err = capsys.readouterr()
    assert out == "Approve: production.approve of hello_delivery? (hello_delivery, run run_1)\n"
    assert re.fullmatch(rf"The Airflow API {said}[^\n]*; trying again \(2 of 4\)\n", err)
    assert airflow.answers == [("bob", "Approve")]


@pytest.mark.parametrize(("method", "path"), [("POST", "/auth/token"), ("GET", "/~/hitlDetails")])
def test_logging_in_and_listing_are_repeated(airflow: PretendedAirflow, method: str, path: str) -> None:
    approval(airflow)
    airflow.fails(method, path, unanswered, answers(503))
    as_bob(airflow, "approve", "hello")
    assert airflow.answers == [("bob", "Approve")] and airflow.asked(method, path) == 3


def test_a_wrong_password_is_tried_once(airflow: PretendedAirflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CD_PASSWORD", "wrong")
    assert "does not accept the login of 'bob' (HTTP 401)" in refusal(airflow, "approve", "hello")
    assert airflow.asked("POST", "/auth/token") == 1


def test_no_answer_in_time_is_a_lost_request(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "PATIENCE", Patience(answer=1, starts=(0, 0, 0, 0)))
    approval(airflow)

    def silent(handle: Callable[[], Answer]) -> None:
        airflow.released.wait(60)

    airflow.fails("GET", "/dags/hello_delivery", silent)
    as_bob(airflow, "approve", "hello")
    assert "The Airflow API did not answer within 1 s; trying again (2 of 4)\n" in capsys.readouterr().err
    assert airflow.answers == [("bob", "Approve")]


def test_it_gives_up_with_a_sentence(airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.fails("GET", "/dags/hello_delivery", *[answers(503)] * 4)
    said = refusal(airflow, "approve", "hello")
    assert f"The Airflow API at {airflow.url} answered with HTTP 503" in said
    assert "in the last of 4 attempts" in said and "--api-url" in said
    assert re.findall(r"\((\d of 4)\)", capsys.readouterr().err) == ["2 of 4", "3 of 4", "4 of 4"]
    assert airflow.asked("GET", "/dags/hello_delivery") == 4


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
def test_a_refusal_with_a_reason_is_not_repeated(airflow: PretendedAirflow, status: int) -> None:
    airflow.fails("GET", "/dags/hello_rollback", answers(status, {"detail": "the Dag is broken"}))
    assert refusal(airflow, "rollback", "hello") == f"Airflow refuses (HTTP {status}): the Dag is broken"
    assert airflow.asked("GET", "/dags/hello_rollback") == 1


def test_a_server_that_is_not_there_is_said_at_once(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.stop()
    said = refusal(airflow, "approve", "hello")
    assert "does not answer" in said and "--api-url" in said
    assert capsys.readouterr().err == ""


def test_a_server_that_restarts_meanwhile_is_waited_for(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    def goes(handle: Callable[[], Answer]) -> None:
        airflow.stop()

    airflow.fails("GET", "/dags/hello_delivery", goes)
    assert "in the last of 4 attempts" in refusal(airflow, "approve", "hello")
    err = capsys.readouterr().err
    assert "closed the connection" in err and err.count("cannot be reached") == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [("<html>login</html>", "is no Airflow API"), ("", "is no Airflow API")],
)
def test_what_is_no_api_is_said(airflow: PretendedAirflow, content: str, said: str) -> None:
    airflow.fails("GET", "/dags/hello_delivery", answers(200, content))
    assert said in refusal(airflow, "approve", "hello")
    airflow.fails("POST", "/auth/token", answers(200, content))
    assert said in refusal(airflow, "approve", "hello")


@pytest.mark.parametrize("url", ["http://[bad", "localhost:8080", "ftp://localhost"])
def test_what_is_no_address_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CD_PASSWORD", "right")
    with pytest.raises(SystemExit, match="--api-url"):
        typed("approve", "hello", "--user", "bob", "--api-url", url)
    assert capsys.readouterr().err == ""


def test_a_token_that_is_none_is_not_shown(
    airflow: PretendedAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CD_TOKEN", "secret\nsecret")
    with pytest.raises(SystemExit, match="AIRFLOW_CD_TOKEN") as ended:
        typed("approve", "hello", "--api-url", airflow.url)
    assert "secret" not in str(ended.value)


# Answers to questions


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize(
    ("command", "task", "option", "dag_id"),
    [
        ("approve", "production.approve", "Approve", "hello_delivery"),
        ("reject", "production.approve", "Reject", "hello_delivery"),
        ("override", "production.deploy", "Deploy now", "hello_deployment"),
        ("promote", "production.deploy", "Go on", "hello_delivery"),
        ("abort", "production.deploy", "Abort", "hello_delivery"),
    ],
)
def test_an_answer_counts_once_whether_or_not_it_arrived(
    airflow: PretendedAirflow,
    capsys: pytest.CaptureFixture[str],
    command: str,
    task: str,
    option: str,
    dag_id: str,
    fault: Fault,
) -> None:
    airflow.ask(dag_id, task, option)
    airflow.fails("PATCH", DETAILS, fault)
    as_bob(airflow, command, "hello")
    out, err = capsys.readouterr()
    assert out.startswith(f"{option}: ") and err.count("trying again (2 of 4)") == 1
    assert airflow.answers == [("bob", option)]


def test_an_answer_that_arrived_is_not_sent_again(airflow: PretendedAirflow) -> None:
    approval(airflow)
    airflow.fails("PATCH", DETAILS, unanswered)
    as_bob(airflow, "approve", "hello")
    assert airflow.asked("PATCH", DETAILS) == 1


def test_reading_whether_it_arrived_may_fail_too(airflow: PretendedAirflow) -> None:
    approval(airflow)
    airflow.fails("PATCH", DETAILS, unanswered)
    airflow.fails("GET", DETAILS, unheard, answers(503))
    as_bob(airflow, "approve", "hello")
    assert airflow.answers == [("bob", "Approve")] and airflow.asked("PATCH", DETAILS) == 1


@pytest.mark.parametrize(("user", "option"), [("eve", "Approve"), ("eve", "Reject"), ("bob", "Reject")])
def test_another_answer_meanwhile_is_said(airflow: PretendedAirflow, user: str, option: str) -> None:
    question = approval(airflow)

    def answered_in_the_ui(handle: Callable[[], Answer]) -> None:
        airflow.record(question, user, option)

    airflow.fails("PATCH", DETAILS, answered_in_the_ui)
    said = refusal(airflow, "approve", "hello")
    assert said.startswith(f"Already answered: {option}, by {user} at 2026-01-01")
    assert airflow.answers == [(user, option)]


def test_whose_answer_was_first_is_said_by_name(airflow: PretendedAirflow) -> None:
    """Ids of FAB's users are numbers."""
    question = approval(airflow)

    def answered_in_the_ui(handle: Callable[[], Answer]) -> None:
        airflow.record(question, "eve", "Reject")
        question["responded_by_user"]["id"] = "7"

    airflow.fails("PATCH", DETAILS, answered_in_the_ui)
    assert refusal(airflow, "approve", "hello").startswith("Already answered: Reject, by eve at")


def test_an_answer_before_the_first_attempt_is_another_one(airflow: PretendedAirflow) -> None:
    """The same user in the UI, with another reason: this command's answer was not taken."""
    question = approval(airflow)

    def answered_in_the_ui(handle: Callable[[], Answer]) -> Answer:
        airflow.record(question, "bob", "Approve")
        return handle()

    airflow.fails("PATCH", DETAILS, answered_in_the_ui)
    assert "Your answer was not taken" in refusal(airflow, "approve", "hello")


def test_an_answer_that_arrives_late_counts(airflow: PretendedAirflow) -> None:
    """It is recorded after the details were read again, and before the answer is sent again."""
    approval(airflow)
    late: list[Callable[[], Answer]] = []

    def kept(handle: Callable[[], Answer]) -> None:
        late.append(handle)

    def overtaken(handle: Callable[[], Answer]) -> Answer:
        late[0]()
        return handle()

    airflow.fails("PATCH", DETAILS, kept, overtaken)
    as_bob(airflow, "approve", "hello")
    assert airflow.answers == [("bob", "Approve")] and airflow.asked("PATCH", DETAILS) == 2


def test_the_next_question_is_not_answered_with_the_answer_to_this_one(airflow: PretendedAirflow) -> None:
    """A rollout takes its next step and asks again, all before the details are read."""
    question = airflow.ask("hello_delivery", "production.deploy", "Go on", "Abort")

    def goes_on(handle: Callable[[], Answer]) -> None:
        handle()
        airflow.ask_again(question)

    airflow.fails("PATCH", DETAILS, goes_on)
    said = refusal(airflow, "promote", "hello")
    assert "asks again" in said and "airflow cd status" in said
    assert airflow.answers == [("bob", "Go on")] and airflow.asked("PATCH", DETAILS) == 1


def test_a_run_that_was_deleted_meanwhile_is_said(airflow: PretendedAirflow) -> None:
    approval(airflow)
    airflow.fails("PATCH", DETAILS, unheard)
    airflow.fails("GET", DETAILS, answers(404, {"detail": "not found"}))
    assert "(HTTP 404)" in refusal(airflow, "approve", "hello")


def test_giving_up_says_that_the_outcome_is_not_known(airflow: PretendedAirflow) -> None:
    approval(airflow)
    airflow.fails("PATCH", DETAILS, *[unheard] * 4)
    said = refusal(airflow, "approve", "hello")
    assert "in the last of 4 attempts" in said and "Airflow may have recorded" in said
    assert airflow.asked("PATCH", DETAILS) == 4 and airflow.answers == []


# Runs


@pytest.mark.parametrize("fault", LOST)
def test_a_rollback_is_started_once(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    """When the first request arrived, the run is over by the time it is found: that is no other run."""
    airflow.fails("POST", RUNS, fault)
    as_bob(airflow, "rollback", "hello", "--reason", "prices")
    ((run_id, run),) = airflow.runs.items()
    assert re.fullmatch(r"cd__\d{8}T\d{6}Z_[0-9a-f]{8}", run_id)
    assert run["conf"] == {"release": "previous", "reason": "prices"}
    page, done = capsys.readouterr().out.splitlines()
    assert page == f"{airflow.url}/dags/hello_rollback/runs/{run_id}"
    assert done == f"production runs 1.0.0 {SUCCESS['digest']} again, and is healthy."


@pytest.mark.parametrize("fault", LOST)
def test_a_train_departs_once(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    airflow.fails("POST", RUNS, fault)
    as_bob(airflow, "depart", "nightly", "--hold", "shop")
    ((run_id, run),) = airflow.runs.items()
    assert run["conf"] == {"hold": ["shop"]}
    assert capsys.readouterr().out == f"{airflow.url}/dags/train_nightly/runs/{run_id}\n"


def test_each_invocation_starts_a_run_of_its_own(airflow: PretendedAirflow) -> None:
    as_bob(airflow, "depart", "nightly")
    as_bob(airflow, "depart", "nightly")
    assert len(airflow.runs) == 2


def test_a_conflict_is_only_the_own_run_when_that_is_there(airflow: PretendedAirflow) -> None:
    conflict = answers(409, {"detail": "another conflict"})
    airflow.fails("POST", RUNS, conflict)
    assert "another conflict" in refusal(airflow, "depart", "nightly")
    airflow.fails("POST", RUNS, unheard, conflict)
    assert "another conflict" in refusal(airflow, "depart", "nightly")
    assert not airflow.runs


def test_giving_up_on_a_run_names_it(airflow: PretendedAirflow) -> None:
    airflow.fails("POST", RUNS, *[unanswered] * 4)
    said = refusal(airflow, "rollback", "hello")
    (run_id,) = airflow.runs
    assert f"{airflow.url}/dags/hello_rollback/runs/{run_id}" in said


def test_waiting_for_a_rollback_survives_lost_answers(airflow: PretendedAirflow) -> None:
    airflow.fails("GET", "/dagRuns/cd__[^/]+", unheard, answers(503))
    airflow.fails("GET", "/taskInstances", unheard)
    airflow.fails("GET", "/return_value", answers(500, LOCKED))
    as_bob(airflow, "rollback", "hello")
    assert len(airflow.runs) == 1


@pytest.mark.parametrize("fault", LOST)
def test_a_departure_is_cancelled_once(
    airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], fault: Fault
) -> None:
    as_bob(airflow, "depart", "nightly")
    airflow.fails("POST", XCOMS, fault)
    as_bob(airflow, "cancel", "nightly", "--reason", "not tonight")
    assert airflow.kept_back == ["not tonight"]
    assert "is cancelled" in capsys.readouterr().out
    as_bob(airflow, "cancel", "nightly")  # it is cancelled already
    assert airflow.kept_back == ["not tonight"]
