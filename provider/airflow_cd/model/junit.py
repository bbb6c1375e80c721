"""Reads JUnit XML reports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from airflow_cd.model.release import TestTotals
from airflow_cd.model.text import printable

_LONGEST_NAME = 200
# The totals count all of them; names are for people, and travel with the release.
_MOST_NAMES = 100


def parse_junit(xml: str | bytes) -> TestTotals:
    """
    Return the totals of a report.

    The single test cases are counted; what the report's attributes claim is not believed.

    :raises ValueError: it is not a JUnit report, or it declares a document type (entity expansion)
    """
    from junitparser import JUnitXml, JUnitXmlError

    content = xml if isinstance(xml, bytes) else xml.encode()
    _refuse_document_types(content)
    try:
        totals = [_count(case) for case in _cases(JUnitXml.fromstring(content))]
    except (JUnitXmlError, SyntaxError, ValueError) as error:
        raise ValueError(f"is not a JUnit report: {error}") from error
    except RecursionError as error:
        raise ValueError("is not a JUnit report: its suites are nested too deeply") from error
    return merge(*totals)


def _refuse_document_types(content: bytes) -> None:
    """
    Look for one as a parser does, in whatever encoding: the text of a test may well speak of one.

    Whichever library reads the report then, there are no entities to expand.
    """

    def refuse(*_: Any) -> None:
        raise ValueError("declares a document type, which no test runner needs and which is refused")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"is not a JUnit report: {error}") from error


def merge(*reports: TestTotals) -> TestTotals:
    """Return the sum of several reports; a failing test named twice is listed once."""
    return TestTotals(
        total=sum(report.total for report in reports),
        failed=sum(report.failed for report in reports),
        errors=sum(report.errors for report in reports),
        skipped=sum(report.skipped for report in reports),
        seconds=round(sum(report.seconds for report in reports), 6),
        failures=tuple(dict.fromkeys(name for report in reports for name in report.failures))[:_MOST_NAMES],
    )


def _cases(node: Any) -> Iterator[Any]:
    from junitparser import TestCase

    for child in node:
        # A suite yields the cases of the suites within it, too.
        yield from [child] if isinstance(child, TestCase) else _cases(child)


def _count(case: Any) -> TestTotals:
    from junitparser import Error, Failure, Skipped

    kinds = {type(result) for result in case.result or ()}
    failed, error, skipped = Failure in kinds, Error in kinds, Skipped in kinds
    return TestTotals(
        total=1,
        failed=int(failed and not error),
        errors=int(error),
        skipped=int(skipped and not failed and not error),
        seconds=_seconds(case.time),
        failures=(_name(case),) if failed or error else (),
    )


def _seconds(stated: Any) -> float:
    """A report may state any number, also one that JSON has no way to write."""
    seconds = float(stated or 0)
    return seconds if 0 < seconds < math.inf else 0.0


def _name(case: Any) -> str:
    name = f"{case.classname}::{case.name}" if case.classname else str(case.name)
    return printable(name, _LONGEST_NAME)
