"""What a measurement is about, and how that gets into addresses and queries without changing their sense."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import quote

from airflow_cd.exceptions import MetricError
from airflow_cd.model.base import Frozen
from airflow_cd.model.services_file.errors import closest


class Subject(Frozen):
    """
    What is judged. Addresses and queries get at each of these as ``${name}``.

    :param service: its name
    :param environment: its name
    :param version: of the new release
    :param revision: commit of the new release
    :param digest: of the new release
    :param namespace: where it runs, as far as the target has such
    :param canary: name of the workload that is the new release, as far as it has one of its own
    :param stable: name of the workload that is the release before
    """

    service: str
    environment: str
    version: str
    revision: str
    digest: str
    namespace: str | None = None
    canary: str | None = None
    stable: str | None = None

    def value(self, placeholder: str) -> str:
        """
        Return what a placeholder stands for.

        :raises MetricError: there is no such thing here
        """
        found: str | None = getattr(self, placeholder)
        if found is None:
            raise MetricError(
                f"there is no ${{{placeholder}}} in {self.environment}: its target has no such thing; "
                "remove the placeholder from the analysis"
            )
        return found


PLACEHOLDERS = tuple(Subject.model_fields)
# A doubled dollar keeps what would be a placeholder; other dollars, as in regular expressions, are nothing
# special.
_PLACEHOLDER = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")
# Comments, and texts with the operator before them when it takes a regular expression.
_QUOTED = re.compile(
    r"""(?P<comment>\#[^\n]*)
    |(?P<pattern>[=!]~\s*)?(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)""",
    re.VERBOSE | re.DOTALL,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}


def check_url(template: str) -> None:
    """
    Make sure that there is something for each placeholder.

    :raises ValueError: there is not
    """
    _replaced(template, lambda name: name)


def fill_url(template: str, subject: Subject) -> str:
    """
    Return the address with every placeholder filled in.

    :raises MetricError: there is nothing for one
    """
    return _replaced(template, lambda name: quote(subject.value(name), safe=""))


def check_promql(template: str) -> None:
    """
    Make sure that a PromQL query is valid, as far as that can be checked without Prometheus.

    :raises ValueError: a bracket or a quote is not closed, a placeholder is unknown or not in quotes
    """
    code = []
    for piece in _pieces(template):
        if piece.quote:
            _replaced(piece.text, lambda name: name)
        elif not piece.text.startswith("#"):
            code.append(piece.text)
    _check_code("".join(code))


def fill_promql(template: str, subject: Subject) -> str:
    """
    Return the query with every placeholder filled in.

    A value stays one text of the query whatever is in it, and where a regular expression is matched, it
    matches itself.

    :raises MetricError: there is nothing for a placeholder
    """

    def filled(piece: _Piece) -> str:
        if not piece.quote:
            return piece.text
        return _replaced(piece.text, lambda name: _in_quotes(subject.value(name), piece))

    return "".join(map(filled, _pieces(template)))


class _Piece(NamedTuple):
    """A part of a query. ``quote`` is empty outside of quotes."""

    text: str
    quote: str = ""
    is_pattern: bool = False


def _pieces(query: str) -> Iterator[_Piece]:
    end = 0
    for found in _QUOTED.finditer(query):
        yield _Piece(query[end : found.start()])
        end = found.end()
        if found["comment"] is not None:
            yield _Piece(found[0])
            continue
        yield _Piece(found["pattern"] or "")
        yield _Piece(found["text"], found["text"][0], found["pattern"] is not None)
    yield _Piece(query[end:])


def _check_code(code: str) -> None:
    if "$" in code:
        raise ValueError(
            "has a placeholder outside of quotes; they stand in texts only, "
            'as in {app="${service}"} or {__name__="${service}_errors_total"}'
        )
    if any(quote in code for quote in "\"'`"):
        raise ValueError("has a quote that is not closed")
    opened: list[str] = []
    for sign in code:
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            raise ValueError(f"has a {sign!r} that closes nothing")
    if opened:
        raise ValueError(f"has a {opened[-1]!r} that is not closed")


def _in_quotes(value: str, piece: _Piece) -> str:
    if piece.is_pattern:
        value = re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value)
    if piece.quote == "`":
        if "`" in value:
            raise MetricError(f"{value!r} cannot stand in backquotes; use other quotes in the analysis")
        return value
    value = value.replace("\\", "\\\\").replace(piece.quote, "\\" + piece.quote)
    return value.replace("\n", "\\n")


def _replaced(text: str, value_of: Callable[[str], str]) -> str:
    def replace(found: re.Match[str]) -> str:
        doubled, name, closed = found.groups()
        if doubled:
            return found[0][1:]
        if not closed or name not in PLACEHOLDERS:
            known = ", ".join(f"${{{one}}}" for one in PLACEHOLDERS)
            raise ValueError(
                f"has the unknown placeholder {found[0]!r}. {closest(name, PLACEHOLDERS)}"
                f"There are {known}; write $${{...}} where none is meant"
            )
        return value_of(name)

    return _PLACEHOLDER.sub(replace, text)
