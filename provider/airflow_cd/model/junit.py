"""Reads JUnit XML reports as a stream: memory does not grow with the report."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from airflow_cd.model.release import TestTotals
from airflow_cd.model.text import printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LONGEST_NAME = 200
# The totals count all of them; names are for people, and travel with the release.
_MOST_NAMES = 100
# Runners nest a suite for each folder or block; no report of a real one comes near this.
_DEEPEST = 200
# Surefire writes a long time with a comma between thousands.
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?")


class _Case(NamedTuple):
    """One test case: its results by the tags of its children."""

    name: str
    seconds: float
    results: frozenset[str]

    @property
    def is_error(self) -> bool:
        return "error" in self.results

    @property
    def is_failure(self) -> bool:
        return "failure" in self.results and not self.is_error

    @property
    def is_skipped(self) -> bool:
        return "skipped" in self.results and not self.is_error and not self.is_failure


def parse_junit(report: str | bytes | IO[bytes]) -> TestTotals:
    """
    Return the totals of a report.

    The single test cases are counted; the totals that the report's attributes claim are ignored.

    :param report: its content, or an open file of any size
    :raises ValueError: it is not a JUnit report, or it declares a document type (entity expansion)
    """
    from defusedxml import DefusedXmlException

    try:
        return _totals(_cases(_opened(report)))
    except DefusedXmlException as error:
        raise ValueError(
            "declares a document type, which no test runner needs and which is refused"
        ) from error
    except (SyntaxError, LookupError, ValueError) as error:
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


def _opened(report: str | bytes | IO[bytes]) -> IO[bytes]:
    if isinstance(report, str):
        return io.BytesIO(report.encode())
    return io.BytesIO(report) if isinstance(report, bytes) else report


def _totals(cases: Iterator[_Case]) -> TestTotals:
    total = failed = errors = skipped = 0
    seconds, names = 0.0, dict[str, None]()
    for case in cases:
        total, seconds = total + 1, seconds + case.seconds
        failed, errors, skipped = failed + case.is_failure, errors + case.is_error, skipped + case.is_skipped
        if (case.is_failure or case.is_error) and len(names) < _MOST_NAMES:
            names[case.name] = None
    return TestTotals(
        total=total,
        failed=failed,
        errors=errors,
        skipped=skipped,
        seconds=round(seconds, 6),
        failures=tuple(names),
    )


def _cases(file: IO[bytes]) -> Iterator[_Case]:
    from defusedxml.ElementTree import iterparse

    open_elements: list[Element] = []
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        tag = _local(element.tag)
        if event == "start":
            if not open_elements and tag not in ("testsuites", "testsuite"):
                raise ValueError(f"its root is <{printable(tag, 40)}>, not <testsuites> or <testsuite>")
            open_elements.append(element)
            if len(open_elements) > _DEEPEST:
                raise ValueError("its suites are nested too deeply")
            continue
        open_elements.pop()
        if tag == "testcase":
            yield _case(element)
        if tag in ("testcase", "testsuite", "properties", "system-out", "system-err"):
            # Read: what stays in memory is what is open now.
            element.clear()
            if open_elements and tag in ("testcase", "testsuite"):
                open_elements[-1].remove(element)


def _case(element: Element) -> _Case:
    name, owner = element.get("name") or "", element.get("classname")
    return _Case(
        name=printable(f"{owner}::{name}" if owner else name, _LONGEST_NAME),
        seconds=_seconds(element.get("time")),
        results=frozenset(_local(child.tag) for child in element),
    )


def _local(tag: str) -> str:
    """Return the name of a tag without its namespace, which some runners declare."""
    return tag.rpartition("}")[2]


def _seconds(stated: str | None) -> float:
    """
    Return the seconds of a test case, 0 for a number that no duration can be.

    :raises ValueError: it is not a number
    """
    text = (stated or "0").strip()
    seconds = float(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    return seconds if 0 < seconds < math.inf else 0.0
