"""Reads JUnit XML reports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_cd.model.release import TestTotals

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LONGEST_NAME = 200


def parse_junit(xml: str | bytes) -> TestTotals:
    """
    Return the totals of a report.

    The single test cases are counted; what the report's attributes claim is not believed.

    :raises ValueError: it is not a JUnit report, or it declares a document type (entity expansion)
    """
    from junitparser import JUnitXml, JUnitXmlError

    content = xml if isinstance(xml, bytes) else xml.encode()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("declares a document type, which no test runner needs and which is refused")
    try:
        root = JUnitXml.fromstring(content)
    except (JUnitXmlError, SyntaxError) as error:
        raise ValueError(f"is not a JUnit report: {error}") from error
    totals = TestTotals()
    for case in _cases(root):
        totals = merge(totals, _count(case))
    return totals


def merge(*reports: TestTotals) -> TestTotals:
    """Return the sum of several reports; a failing test named twice is listed once."""
    return TestTotals(
        total=sum(report.total for report in reports),
        failed=sum(report.failed for report in reports),
        errors=sum(report.errors for report in reports),
        skipped=sum(report.skipped for report in reports),
        seconds=round(sum(report.seconds for report in reports), 6),
        failures=tuple(dict.fromkeys(name for report in reports for name in report.failures)),
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
        seconds=max(float(case.time or 0), 0),
        failures=(_name(case),) if failed or error else (),
    )


def _name(case: Any) -> str:
    name = f"{case.classname}::{case.name}" if case.classname else str(case.name)
    return _CONTROL.sub("�", name)[:_LONGEST_NAME]
