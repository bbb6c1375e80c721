"""Errors in a services file: where, what is wrong, and the remedy, in the words of the file's author."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.services_file.yaml_lines import Document, Place
from airflow_cd.model.target import TargetChoice
from airflow_cd.model.target_settings import settings_class

_ARGV = "Write an argv list, for example [python, -m, pytest]; it is never given to a shell"
_LONGEST = 200


def explain(error: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, Any, str]:
    """
    Return problem, value and remedy.

    :param error: one of ``ValidationError.errors()``
    :param model: what was validated
    """
    place = tuple(error["loc"])
    name = ".".join(str(step) for step in place) or "this"
    kind, value = error["type"], error.get("input")
    if kind == "missing":
        return f"{name!r} is missing", None, "Add it"
    if kind == "extra_forbidden":
        return f"unknown key {place[-1]!r}", None, _known_keys(model, place)
    if kind in ("tuple_type", "list_type") and isinstance(value, str) and _holds_argv(place):
        return f"{name!r} is a string where commands are expected", shorten(value), _ARGV
    if kind == "string_type":
        return f"{name!r} is not a string", shorten(value), _quote(value)
    return f"{name!r} {_sentence(error)}", shorten(value), _remedy(error)


def telling(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out that a list is too short when that is only because its entries are wrong."""
    places = [tuple(error["loc"]) for error in errors]

    def caused(error: Mapping[str, Any]) -> bool:
        place = tuple(error["loc"])
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [error for error in errors if error["type"] != "too_short" or not caused(error)]


def shorten(value: Any) -> Any:
    """Return the value as it may stand in a message; long ones are cut."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def closest(name: str, known: Sequence[str]) -> str:
    """Return a question about what was meant, or nothing."""
    found = difflib.get_close_matches(str(name), known, n=1)
    return f"Did you mean {found[0]!r}? " if found else ""


def _sentence(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    message = str(error["msg"])
    return f"is wrong: {message[0].lower()}{message[1:]}"


def _remedy(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "literal_error":
        return f"Write one of: {context.get('expected')}"
    if kind == "string_pattern_mismatch":
        if str(context.get("pattern")).startswith("^[a-z]["):
            return "Use lower-case letters, digits, '-' and '_', beginning with a letter, 63 at most"
        return f"It must match {context.get('pattern')}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "Write a mapping of keys and values"
    if kind in ("tuple_type", "list_type"):
        return "Write a list: [first, second]"
    return "Correct it; the page services.yaml of the documentation lists every key"


def _quote(value: Any) -> str:
    if isinstance(value, bool):
        return "Put it in quotes: YAML reads on, off, yes and no as true and false"
    if isinstance(value, (int, float)):
        return f"Put it in quotes: '{value}'"
    return "Write text"


def _holds_argv(place: Sequence[Any]) -> bool:
    return bool({"build", "commands", "command"} & set(place))


def _known_keys(model: type[BaseModel], place: Sequence[Any]) -> str:
    holder: type[BaseModel] | None = model
    for step in place[:-1]:
        if holder is not None and isinstance(step, str):
            holder = _model_at(holder, step)
    fields = holder.model_fields if holder else {}
    known = sorted(field.alias or name for name, field in fields.items())
    return f"{closest(place[-1], known)}Known keys here: {', '.join(known)}"


def _model_at(holder: type[BaseModel], step: str) -> type[BaseModel] | None:
    if step in holder.model_fields:
        return _model_in(holder.model_fields[step].annotation)
    # A kind of target that a package adds is no field; any other such step is a key of a mapping.
    return settings_class(step) if issubclass(holder, TargetChoice) else holder


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if (found := _model_in(inner)) is not None:
            return found
    return None


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
