"""What is wrong in a services file, and where."""

from __future__ import annotations

from typing import Any

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.document import Document, Place
from airflow_cd.model.messages import shorten


class ErrorCollector:
    """
    The errors of a document, in the order they were found.

    ``broken`` has the indices of the services that have one.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[DefinitionError] = []
        self.broken: set[str | int] = set()

    def report(self, place: Place, problem: str, *args: Any, **kwargs: Any) -> None:
        """Keep an error, and go on. Parameters as of :meth:`error`."""
        self.errors.append(self.error(place, problem, *args, **kwargs))
        if place[:1] == ("services",):
            self.broken.add(place[1])

    def error(
        self,
        place: Place,
        problem: str,
        value: Any = None,
        remedy: str | None = None,
        service: str | None = None,
    ) -> DefinitionError:
        """
        Return an error that names the line.

        :param place: keys and indices that lead to what is wrong
        :param service: name of the service whose DAG is missing for it
        """
        line, depth = self.document.line(place)
        if place[:1] == ("services",) and len(place) > 2:
            # What is wrong may stand under `defaults`, which every service has a part in.
            default_line, default_depth = self.document.line(("defaults", *place[2:]))
            if default_depth - 1 > depth - 2:
                line = default_line
        return DefinitionError(
            problem,
            path=self.document.path,
            line=line,
            value=shorten(value),
            remedy=remedy,
            service=service,
        )
