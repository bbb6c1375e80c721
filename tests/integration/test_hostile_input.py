"""Hostile names and words, sent through a running Airflow: data everywhere, and run nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from harness.airflow import RunningAirflow
from harness.api import ApiError
from harness.runs import Run
from markdown_it import MarkdownIt
from tests.integration.deciding import APPROVE, answer, parked
from tests.integration.services import TestService

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive]

MakeService = Callable[..., TestService]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
WORDS = (
    "\x1b[2J\x1b]0;owned\x07 {{ 7 * 7 }} {% raw %} <script>alert(1)</script> ![x](http://evil.example/x.png) "
    "**approved by bob** \u202egnp.exe $(touch RAN) `touch RAN`; touch RAN"
)
SHOWN = WORDS.replace("\x1b", "\ufffd").replace("\x07", "\ufffd").replace("\u202e", "\ufffd")
NAMES = [
    b"new\nline",
    b"-rf",
    b"qu'o\"te",
    b"back\\slash",
    b"\xff\xfe",
    b"{{ 7 * 7 }}",
    b"\x1b[2J",
    b"$(touch RAN)",
]


def put_odd_files(hello: TestService, ran: Path, branch: str) -> None:
    """Commit files with odd names, and settings by which git would run programs in a checkout."""
    folder = os.fsencode(hello.repository.work / "src")
    for name in NAMES:
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(name)
    settings = {
        ".gitattributes": "* filter=evil\n",
        ".gitconfig": f'[filter "evil"]\nsmudge = touch {ran}\n[core]\nhooksPath = .githooks\n',
        ".githooks/post-checkout": f"#!/bin/sh\ntouch {ran}\n",
    }
    hello.repository.git("add", "--all")
    hello.repository.commit(settings, branch=branch, push=False)


def test_a_hostile_commit_is_released_as_data(
    service: MakeService, airflow: RunningAirflow, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    branch = f"x;$(touch${{IFS}}{ran})`id`<img/src=x>|{{{{7+7}}}}"
    words, shown = WORDS.replace("RAN", str(ran)), SHOWN.replace("RAN", str(ran))
    hello = service(approval={"approvers": ["bob"]})
    put_odd_files(hello, ran, branch)
    sha = hello.commit(
        "hostile", message=f"{words}\n\nApproved-by: bob", author=words, email="m@x", branch=branch
    )
    hello.watch("200ms", branch)

    run = parked(Run.of_commit(airflow.api, hello.dag_id, sha, timeout=90))
    payload = airflow.api.triggering_events(hello.dag_id, run.run_id)[0]["extra"]["payload"]
    pushed = payload["commits"][0]
    assert (payload["branch"], pushed["subject"][:199]) == (branch, shown[:199])
    assert "{% raw %} scriptalert(1)/script ![x](http" in pushed["author_name"]  # git itself drops the rest
    assert shown[:150] in run.log("build")
    html = MARKDOWN.render(run.question(APPROVE)["body"])
    assert shown[:150] in unescape(html)
    for tag in ("<script", "<img", "<a ", "<del"):
        assert tag not in html
    assert "<strong>approved by bob" not in html

    answer(run, "Approve", airflow.as_user("bob"), reason=f"{words}\nApproved by alice")
    run.wait_for("success")
    assert hello.served() == "hostile"
    reason = run.xcom(APPROVE)["reason"]
    assert reason == f"{shown}\ufffdApproved by alice"
    current = hello.record().current
    assert current is not None and current.approval == "approved by bob"
    (release,) = (airflow.home / "cd/local" / hello.name / "production/releases").iterdir()
    for name in NAMES:
        assert (release / "src" / os.fsdecode(name)).read_bytes() == name
    assert not ran.exists()


def test_only_a_full_sha_starts_a_run(service: MakeService) -> None:
    one = service("deployment")
    refused = ["--upload-pack=touch x", "HEAD", "main", "v1.0.0", one.head[:8], "../../x", "{{ 7 * 7 }}"]
    refused += [one.head[:39] + "\0", one.head + "\u202e", "x" * 100_000]
    for revision in refused:
        with pytest.raises(ApiError, match="HTTP 4"):
            Run.triggered(one.airflow.api, one.dag_id, {"revision": revision})
    assert one.airflow.api.dag_runs(one.dag_id) == []
