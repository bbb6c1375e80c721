"""The commands in a real terminal of 80 columns, and with none: help, tables, the password prompt."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.text import Text
from tests.support.releases import release_of
from tests.unit.cli.pretended_airflow import PretendedAirflow, pretended_airflow
from tests.unit.cli.terminal import airflow_command, in_terminal, several, without_terminal
from tests.unit.cli.typed import commands, typed

from airflow_cd.model.history import Change
from airflow_cd.model.release import ReleaseName
from airflow_cd.releases.adapters import data_dir
from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.local.target import root_of
from airflow_cd.targets.record import Deployed, Hold, Record

DIGEST = "sha256:" + "d" * 64
REASON = f"prices are wrong\nsince noon, wait for {DIGEST}"
SUBJECT = "Show the prices of all articles to everybody, as the new law demands"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A services file: two services with a release in each environment, on a train."""
    names = ("warehouse-terminal", "storefront-terminal")
    file = tmp_path_factory.mktemp("terminal") / "services.yaml"
    services = [_service(name, port) for name, port in zip(names, (8990, 8992), strict=True)]
    file.write_text(yaml.safe_dump({"services": services, "trains": [_TRAIN]}))
    for name in names:
        for environment in ("staging", "production"):
            _deploy(name, environment)
    return file


_TRAIN = {"name": "nightly", "schedule": "0 2 * * *", "timezone": "Europe/Berlin"}


def _service(name: str, port: int) -> dict[str, Any]:
    environments = [
        {"name": environment, "target": {"local": {"command": ["app"], "port": port + number}}}
        for number, environment in enumerate(("staging", "production"))
    ]
    return {
        "name": name,
        "pipeline": "delivery",
        "train": "nightly",
        "source": {"repository": "/srv/hello.git"},
        "environments": environments,
    }


def _deploy(name: str, environment: str) -> None:
    at = datetime.now(timezone.utc) - timedelta(days=3, hours=4)
    release = release_of(DIGEST, service=name, version="2026.11.27+g1a2b3c4", subject=SUBJECT, at=at)
    layout = Layout(root_of(data_dir()), name, environment)
    hold = Hold(by="bob", since=at, reason=REASON)
    deployed = Deployed(release=release, deployed_at=at, actor="x")
    layout.write_generation(Record(generation=1, current=deployed, hold=hold), "h:1")
    layout.make_current(1)


def _change(generation: int) -> dict[str, Any]:
    at = datetime(2026, 1, 2, 3, 4, generation, tzinfo=timezone.utc)
    release = release_of(DIGEST, service="warehouse-terminal", version="2026.11.27+g1a2b3c4", subject=SUBJECT)
    change = Change(
        service="warehouse-terminal",
        environment="production",
        kind="rolled back",
        generation=generation,
        release=ReleaseName.of(release),
        replaced=ReleaseName.of(release),
        actor="warehouse-terminal_rollback/cd__20260102T030405Z_1a2b3c4d",
        reason=REASON,
        at=at,
    )
    return change.model_dump(mode="json")


@pytest.fixture(scope="module")
def airflow() -> Iterator[PretendedAirflow]:
    with pretended_airflow() as server:
        server.events += [_change(1), _change(2)]
        run_id = "scheduled__2026-01-02T03:04:05+00:00"
        server.runs[run_id] = {"dag_run_id": run_id, "dag_id": "train_nightly", "state": "running"}
        yield server


@pytest.fixture(scope="module")
def tables(services: Path, airflow: PretendedAirflow) -> list[list[str]]:
    """Return the command lines of all commands that print a table."""
    login = ["--user", "bob", "--api-url", airflow.url]
    return [
        ["cd", "status", "--file", str(services), *login],
        ["cd", "trains", "--file", str(services), *login],
        ["cd", "history", "warehouse-terminal", *login],
        ["cd", "metrics", "--file", str(services), "--days", "3000", *login],
    ]


def _parts(shown: str) -> list[str]:
    """Return what each command of a process printed."""
    *parts, rest = shown.split("<exit 0>\n")
    assert rest == "", shown
    return parts


@pytest.fixture(scope="module")
def piped(tables: list[list[str]]) -> list[str]:
    done = without_terminal(several(*tables), AIRFLOW_CD_PASSWORD="right", COLUMNS="40")
    assert "Traceback" not in done.stderr
    return _parts(done.stdout)


NUMBERED = pytest.mark.parametrize(
    ("number", "rows"), [(0, 4), (1, 2), (2, 2), (3, 3)], ids=["status", "trains", "history", "metrics"]
)


@NUMBERED
def test_without_a_terminal_a_row_is_a_line(piped: list[str], number: int, rows: int) -> None:
    lines = piped[number].splitlines()
    assert len(lines) == 1 + rows, piped[number]
    assert "\x1b" not in piped[number] and "…" not in piped[number]
    if number in (0, 2):
        assert all(f"wait for {DIGEST}" in line for line in lines[1:])


def test_a_terminal_of_80_columns_cuts_no_word(tables: list[list[str]], piped: list[str]) -> None:
    shown = _parts(in_terminal(several(*tables), AIRFLOW_CD_PASSWORD="right"))
    for whole, narrow in zip(piped, shown, strict=True):
        assert "\x1b" not in narrow
        lines = narrow.splitlines()
        assert max(map(len, lines)) <= 80, narrow
        assert {word for line in whole.splitlines()[1:] for word in line.split()} <= {*narrow.split(), "-"}
        for date in re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", whole):
            assert any(date in line for line in lines)


# Help


def test_no_help_text_is_markup() -> None:
    """So it reads the same with Airflow's rich help and with plain argparse."""
    for command in commands().values():
        for text in (command.help, *(arg.kwargs.get("help") for arg in command.args)):
            assert text and Text.from_markup(text).plain == text and "\\" not in text


def test_help_shows_every_word_and_fits() -> None:
    helps = [["cd", "--help"], *(["cd", name, "--help"] for name in commands())]
    group, *shown = _parts(_ESCAPES.sub("", in_terminal(several(*helps))))
    for (name, command), text in zip(commands().items(), shown, strict=True):
        texts = [str(command.help), *(str(arg.kwargs["help"]) for arg in command.args)]
        for one in texts:
            assert set(one.split()) <= set(text.split()), text
        assert re.search(rf"{name} +{re.escape(texts[0])}\n", group)
        assert max(map(len, (group + text).splitlines())) <= 80


# The prompt


def test_without_a_terminal_the_prompt_is_an_error(services: Path) -> None:
    done = without_terminal(airflow_command("cd", "status", "--file", str(services), "--user", "bob"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("No terminal to ask for the password of 'bob'")
    assert "--user" in line and "AIRFLOW_CD_PASSWORD" in line and "AIRFLOW_CD_TOKEN" in line


def test_the_prompt_ends_with_what_is_typed(services: Path, airflow: PretendedAirflow) -> None:
    status = ["cd", "status", "--file", str(services), "--user", "bob", "--api-url", airflow.url]
    asked = "Password of bob: "
    keys = [(asked, b"\x03"), (asked, b"\x04"), (asked, b"right\n")]
    shown = in_terminal(several(status, status, status), keys=keys)
    interrupted, ended, rest = re.split("<exit 130>\n|<exit 1>\n", shown)
    assert interrupted.strip() in (asked.strip(), f"{asked}^C")
    assert ended.startswith(asked) and ended.count("\n") <= 2 and "AIRFLOW_CD_TOKEN" in ended
    assert "warehouse-terminal" in rest and rest.endswith("<exit 0>\n")


def test_ctrl_c_ends_a_command_quietly(monkeypatch: pytest.MonkeyPatch, services: Path) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airflow_cd.cli.validate.load_services", interrupted)
    with pytest.raises(SystemExit) as ended:
        typed("validate", str(services))
    assert ended.value.code == 130 and ended.value.__suppress_context__


# The other end of the pipe


def test_a_closed_pipe_is_no_error_to_talk_about(services: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    argv = airflow_command("cd", "status", "--file", str(services))
    with os.fdopen(theirs) as closed:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=closed, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_said(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(SystemExit, match="^error: cannot write to standard output: No space left"):
            typed("validate", str(services))
