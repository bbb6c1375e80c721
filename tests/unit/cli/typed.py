"""Runs a command as Airflow runs it: arguments as typed, parsed with the definitions of the commands."""

from __future__ import annotations

import argparse

from airflow.cli.cli_config import ActionCommand, GroupCommand

from airflow_cd.cli.commands import get_cd_commands


def commands() -> dict[str, ActionCommand]:
    """Return the commands of the group by their names."""
    (group,) = get_cd_commands()
    assert isinstance(group, GroupCommand)
    return {command.name: command for command in group.subcommands if isinstance(command, ActionCommand)}


def typed(name: str, *arguments: str) -> None:
    """Run ``airflow cd <name> <arguments>`` in this process."""
    command = commands()[name]
    parser = argparse.ArgumentParser(name)
    for arg in command.args:
        arg.add_to_parser(parser)
    command.func(parser.parse_args(arguments))
