"""``airflow cd validate``: checks a services file without an Airflow."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from rich.console import Console

from airflow_cd.model.loading import load_services


def validate(args: Namespace) -> None:
    """
    Print what is in the file.

    :raises DefinitionError: it cannot be read at all
    :raises SystemExit: with code 1 when something is wrong in it
    """
    console = Console(soft_wrap=True, highlight=False)
    definitions = load_services(Path(args.file))
    for service in definitions.services:
        stages = " -> ".join(environment.name for environment in service.environments)
        console.print(f"ok     {service.name}: {service.pipeline}, {stages}", markup=False)
    for problem in definitions.errors:
        console.print(f"error  {problem}", markup=False)
    if definitions.errors:
        raise SystemExit(1)
