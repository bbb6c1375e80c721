"""Mails that a running Airflow sends through the notifier of an installed provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.ports import any_free
from tests.support.mail_server import MailServer, mail_server

SMTP = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"


def connect(airflow: RunningAirflow, conn_id: str, port: int) -> None:
    extra = {"disable_ssl": True, "disable_tls": True, "timeout": 2, "retry_limit": 1}
    body = {"connection_id": conn_id, "conn_type": "smtp", "host": "127.0.0.1", "port": port}
    airflow.api.request("POST", "/api/v2/connections", json={**body, "extra": json.dumps(extra)})


@pytest.fixture
def mails(airflow: RunningAirflow) -> Iterator[MailServer]:
    """A mail server known to Airflow as the connection ``mail``; behind ``nowhere`` nothing listens."""
    with mail_server() as server:
        connect(airflow, "mail", server.port)
        connect(airflow, "nowhere", any_free()[0])
        yield server
        for conn_id in ("mail", "nowhere"):
            airflow.api.request("DELETE", f"/api/v2/connections/{conn_id}")


def by_mail(
    *events: str,
    subject: str,
    text: str = "{{ cd.release.subject }} {{ cd.url }}",
    conn_id: str = "mail",
    **more: Any,
) -> dict[str, Any]:
    kwargs = {
        "smtp_conn_id": conn_id,
        "from_email": "cd@example.org",
        "to": "team@example.org",
        "subject": subject,
        "html_content": text,
    }
    return {"events": list(events), "notifier": SMTP, "kwargs": kwargs, **more}
