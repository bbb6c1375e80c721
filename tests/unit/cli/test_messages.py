"""What a command ends with is text, whatever it quotes."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from airflow_cd.cli import commands
from airflow_cd.exceptions import CdError


def ending(error: BaseException) -> Any:
    def call(args: Namespace) -> None:
        raise error

    return call


@pytest.mark.parametrize("kind", [SystemExit, CdError])
def test_a_message_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    hostile = ending(kind("first \x1b]0;owned\x07\nsecond \x9b2J\u202e"))
    monkeypatch.setattr(commands, "lazy_load_command", lambda path: hostile)
    with pytest.raises(SystemExit) as ended:
        commands._command("x")(Namespace())
    said = str(ended.value.code)
    assert said.count("\n") == 1
    assert not any(sign in said for sign in "\x1b\x07\x9b\u202e")


def test_an_exit_code_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "lazy_load_command", lambda path: ending(SystemExit(3)))
    with pytest.raises(SystemExit) as ended:
        commands._command("x")(Namespace())
    assert ended.value.code == 3
