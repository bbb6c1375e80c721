"""How a broken service is shown without taking the others down."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from airflow_cd.exceptions import DefinitionError


class BrokenServicesDag(DAG):
    """
    Carries the errors of a services file to where Airflow shows import errors.

    Airflow refuses to run any DAG of a file that has an import error, so the error must not be the DAG
    file's: in the DAG processor this DAG is found invalid only when it is serialized, and by then it
    says that it comes from the services file. Everywhere else (a test with ``DagBag``) it is invalid at once.
    """

    def __init__(self, file: Path, errors: Sequence[DefinitionError]) -> None:
        name = re.sub(r"[^A-Za-z0-9_]", "_", file.name)
        super().__init__(dag_id=f"errors_in_{name}", schedule=None)
        self._file = file
        self._problem = DefinitionError("\n".join(str(error) for error in errors))

    def validate(self) -> None:
        """
        Raise the errors, or leave that to serialization.

        :raises DefinitionError: outside the DAG processor
        """
        if not _in_dag_processor():
            raise self._problem
        folder = os.path.dirname(self.relative_fileloc or "")
        beside = os.path.relpath(self._file, os.path.dirname(self.fileloc))
        self.relative_fileloc = os.path.normpath(os.path.join(folder, beside))
        object.__setattr__(self, "get_serialized_fields", self._raise)

    def _raise(self) -> Any:
        raise self._problem


def _in_dag_processor() -> bool:
    """Only processes that Airflow supervises have this; the one that runs a task never makes this DAG."""
    from airflow.sdk.execution_time import task_runner

    return hasattr(task_runner, "SUPERVISOR_COMMS")
