"""``airflow cd validate``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from airflow_cd.cli.commands import get_cd_commands
from airflow_cd.cli.validate import validate

ROOT = Path(__file__).parents[3]


def test_a_good_file_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    validate(Namespace(file=str(ROOT / "dags/services.yaml")))
    out = capsys.readouterr().out
    assert "ok     hello: delivery, staging -> production" in out


def test_a_bad_one_fails_with_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("services:\n  - name: hello\n    buld: []\n")
    with pytest.raises(SystemExit, match="1"):
        validate(Namespace(file=str(file)))
    out = capsys.readouterr().out
    assert "'buld'" in out and "'pipeline' is missing" in out


@pytest.mark.parametrize("name", ["validate", "status"])
def test_what_cannot_be_read_is_an_error_in_a_sentence(tmp_path: Path, name: str) -> None:
    file = str(tmp_path / "none.yaml")
    (group,) = get_cd_commands()
    (command,) = [one for one in group.subcommands if one.name == name]  # type: ignore[union-attr]
    with pytest.raises(SystemExit, match=r"^error: .*none\.yaml: the services file does not exist") as caught:
        command.func(Namespace(file=file, service=[], user=None, api_url=None))
    assert caught.value.__suppress_context__


def test_the_commands_are_there() -> None:
    (group,) = get_cd_commands()
    assert group.name == "cd"
    names = [command.name for command in group.subcommands]  # type: ignore[union-attr]
    answers = ["approve", "reject", "override"]
    assert names == [
        *("validate", "status", "history", "metrics", "rollback", *answers),
        *("promote", "abort", "trains", "depart", "cancel", "gc"),
    ]
