"""``airflow cd validate``: checks a services file without an Airflow."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from airflow_cd.cli.printing import say
from airflow_cd.model.services_file.loader import load_services


def validate(args: Namespace) -> None:
    """
    Print what is in the file.

    :raises DefinitionError: it cannot be read at all
    :raises SystemExit: with code 1 when something is wrong in it
    """
    definitions = load_services(Path(args.file))
    for service in definitions.services:
        stages = " -> ".join(environment.name for environment in service.environments)
        say(f"ok     {service.name}: {service.pipeline}, {stages}")
    for problem in definitions.errors:
        say(f"error  {problem}")
    if definitions.errors:
        raise SystemExit(1)
