"""JUnit XML as different runners write it."""

from __future__ import annotations

import pytest

from airflow_cd.model.junit import merge, parse_junit
from airflow_cd.model.release import TestTotals

NESTED = """<?xml version="1.0"?>
<testsuites tests="99">
  <testsuite name="a" tests="77">
    <testcase classname="t.A" name="good" time="0.5"/>
    <testcase classname="t.A" name="bad[x-1]" time="1"><failure message="no">trace</failure></testcase>
    <testsuite name="inner">
      <testcase name="broken"><error/></testcase>
      <testcase name="left out"><skipped/></testcase>
    </testsuite>
  </testsuite>
</testsuites>"""


def test_cases_are_counted_not_claims() -> None:
    totals = parse_junit(NESTED)
    assert (totals.total, totals.passed, totals.failed, totals.errors, totals.skipped) == (4, 1, 1, 1, 1)
    assert totals.failures == ("t.A::bad[x-1]", "broken")
    assert totals.seconds == 1.5


def test_a_lone_suite_and_an_empty_report() -> None:
    assert parse_junit(b'<testsuite><testcase name="a"/></testsuite>').total == 1
    assert parse_junit("<testsuites/>") == TestTotals()


def test_hostile_names_are_data() -> None:
    xml = '<testsuite><testcase name="a&#10;b&#27;[31m%s"><failure/></testcase></testsuite>' % ("x" * 500)
    xml = xml.replace("&#27;", "")  # not allowed in XML at all
    (name,) = parse_junit(xml).failures
    assert "\n" not in name and len(name) == 200


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        ("<testsuite>", "not a JUnit report"),
        ("", "not a JUnit report"),
        ("<html/>", "not a JUnit report"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite name="&a;"/>', "document type"),
    ],
)
def test_what_is_no_report_is_said(xml: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_junit(xml)


def test_reports_add_up_and_name_a_test_once() -> None:
    both = merge(parse_junit(NESTED), parse_junit(NESTED))
    assert (both.total, both.failed) == (8, 2)
    assert both.failures == ("t.A::bad[x-1]", "broken")
