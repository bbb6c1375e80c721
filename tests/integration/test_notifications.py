"""Notifications on a running Airflow: mails that arrive, through the notifier of an installed provider."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from tests.integration.deciding import APPROVE, DEPLOY, answer, parked
from tests.integration.mailing import SMTP, by_mail
from tests.integration.services import TestService
from tests.support.mail_server import MailServer

pytestmark = pytest.mark.scheduler

MakeService = Callable[..., TestService]
PASSWORD = "a-password-that-nobody-may-see"


SUBJECT = "{{ cd.event }} {{ cd.service }} {{ cd.environment }} {{ cd.release.revision[:8] }}"


def test_people_are_told_once_of_what_happens(
    service: MakeService, airflow: RunningAirflow, mails: MailServer
) -> None:
    everything = ("approval_needed", "deployed", "rolled_back")
    hello = service(notify=[by_mail(*everything, subject=SUBJECT, environments=["production"])])
    first = hello.head[:8]
    run = parked(hello.run())
    wait_until(lambda: mails.subjects(), "the mail about the approval", timeout=120)
    assert mails.subjects() == [f"approval_needed {hello.name} production {first}"]
    assert f"{APPROVE}/required_actions" in mails.mails[0].get_body().get_content()  # type: ignore[union-attr]
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("success", timeout=180)
    assert mails.subjects("deployed") == [f"deployed {hello.name} production {first}"]
    deployed = mails.mails[-1].get_body()
    assert deployed is not None
    assert deployed.get_content().split("\n")[0] == f"say first http://127.0.0.1:{hello.ports['production']}"

    second = hello.commit("second", sick_in="production")[:8]
    run = parked(hello.run())
    answer(run, "Approve", airflow.as_user("bob"))
    run.wait_for("failed", timeout=240)
    assert mails.subjects("deployed")[1:] == [f"deployed {hello.name} production {second}"]
    # About the release that runs again; reported once, though the task came back from the triggerer.
    assert mails.subjects("rolled_back") == [f"rolled_back {hello.name} production {first}"]
    assert len(mails.subjects("approval_needed")) == 2


def test_a_notifier_that_fails_fails_nothing(
    service: MakeService, airflow: RunningAirflow, mails: MailServer
) -> None:
    failing = [
        {"events": ["deployed"], "notifier": "no.such.Notifier", "kwargs": {"token": PASSWORD}},
        {"events": ["deployed"], "notifier": "json.JSONDecoder"},
        {"events": ["deployed"], "notifier": SMTP, "kwargs": {"unknown": PASSWORD}},
        by_mail("deployed", subject="x", conn_id="nowhere"),
        by_mail("deployed", subject="{{ 1 / 0 }}"),
    ]
    hello = service("deployment", notify=[*failing, by_mail("deployed", subject="{{ cd.environment }}")])
    run = hello.run()
    run.wait_for("success", timeout=240)
    assert hello.served() == "first"
    # In the order of the environments, though others before it in the list failed.
    assert mails.subjects() == ["staging", "production"]
    log = run.log(DEPLOY)
    for told in ("no.such.Notifier", "json.JSONDecoder is no notifier", "ZeroDivisionError"):
        assert told in log
    path = f"/dags/{hello.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/{DEPLOY}"
    assert PASSWORD not in log
    assert airflow.api.get(path)["rendered_fields"] == {}
