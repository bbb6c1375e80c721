"""What ``airflow cd status`` shows of records whose texts are other people's."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from tests.support.releases import release_of

from airflow_cd.cli.status import status
from airflow_cd.releases.adapters import data_dir
from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.local.target import root_of
from airflow_cd.targets.record import Deployed, Hold, Record

NAME = "hostile-status"


@pytest.fixture
def services(tmp_path: Path) -> Path:
    environment = {"name": "production", "target": {"local": {"command": ["app"], "port": 8999}}}
    service = {
        "name": NAME,
        "pipeline": "delivery",
        "source": {"repository": "/srv/hello.git"},
        "environments": [environment],
    }
    file = tmp_path / "services.yaml"
    file.write_text(yaml.safe_dump({"services": [service]}))
    return file


def record(subject: str, reason: str, age: timedelta) -> None:
    at = datetime.now(timezone.utc) - age
    release = release_of("sha256:" + "c" * 64, service=NAME, version="1", subject=subject, at=at)
    deployed = Deployed(release=release, deployed_at=at, actor="x")
    layout = Layout(root_of(data_dir()), NAME, "production")
    layout.write_generation(
        Record(generation=1, current=deployed, hold=Hold(by="b", since=at, reason=reason)), "h:1"
    )
    layout.make_current(1)


@pytest.mark.parametrize("text", ["[/] [bold]", "[link=http://evil.example]x[/link]", "[red]x", ":smile:"])
def test_markup_in_a_subject_is_text(services: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    record(subject=text, reason=text, age=timedelta(days=1))
    status(Namespace(file=str(services), service=None, user=None, api_url=None))
    printed = capsys.readouterr().out
    assert f"aaaaaaaa {text}" in printed
    assert f"held by b: {text}" in printed
    assert "\x1b" not in printed


def test_a_clock_that_was_set_back_is_survived(services: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(subject="from tomorrow", reason="x", age=timedelta(days=-1))
    status(Namespace(file=str(services), service=None, user=None, api_url=None))
    assert "from tomorrow" in capsys.readouterr().out
