"""JUnit XML as different runners write it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

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


DOCUMENT_TYPE = '<!DOCTYPE a [<!ENTITY x "y">]><testsuite><testcase name="&x;"/></testsuite>'


@pytest.mark.parametrize(
    ("xml", "says"),
    [
        (DOCUMENT_TYPE.encode("utf-16"), "document type"),
        (b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a>', "not a JUnit report|encoding"),
        (b'<?xml version="1.0" encoding="nonsense"?><testsuite/>', "unknown encoding"),
        (b"\0" * 9, "not a JUnit report"),
        ("<testsuite>" * 5000 + "</testsuite>" * 5000, "nested too deeply"),
        ('<testsuite><testcase name="a" time="soon"/></testsuite>', "not a JUnit report"),
    ],
    ids=["utf-16", "utf-7", "no-encoding", "nul", "deep", "time"],
)
def test_a_hostile_report_is_refused(xml: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_junit(xml)


def test_a_test_may_speak_of_a_document_type() -> None:
    failure = "<failure><![CDATA[expected <!DOCTYPE html>]]></failure>"
    assert parse_junit(f'<testsuite><testcase name="a">{failure}</testcase></testsuite>').failed == 1


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "1e999", "-1"])
def test_times_come_back_from_json(seconds: str) -> None:
    totals = parse_junit(f'<testsuite><testcase name="a" time="{seconds}"/></testsuite>')
    assert TestTotals.model_validate_json(totals.model_dump_json()) == totals
    assert totals.seconds == 0


def test_of_many_failing_tests_the_first_are_named_and_all_counted() -> None:
    case = '<testcase name="t{}"><failure/></testcase>'
    totals = parse_junit(f"<testsuite>{''.join(case.format(number) for number in range(20_000))}</testsuite>")
    assert (totals.total, totals.failed, len(totals.failures)) == (20_000, 20_000, 100)


def test_a_long_time_has_a_comma_between_thousands() -> None:
    assert parse_junit('<testsuite><testcase name="a" time="1,234.5"/></testsuite>').seconds == 1234.5


def test_a_namespace_hides_no_case() -> None:
    xml = '<testsuite xmlns="urn:junit"><testcase name="a"><failure/></testcase></testsuite>'
    assert parse_junit(xml).failures == ("a",)


def test_a_large_report_needs_little_memory(tmp_path: Path) -> None:
    """19 MB of a report took 1.4 GiB with a tree of it."""
    case = (
        b'<testcase classname="a.b" name="t" time="0.01"><system-out>'
        + b"x" * 400
        + b"</system-out></testcase>"
    )
    file = tmp_path / "report.xml"
    with file.open("wb") as report:
        report.write(b"<testsuites><testsuite>")
        for _ in range(40_000):
            report.write(case)
        report.write(b"</testsuite></testsuites>")
    tracemalloc.start()
    with file.open("rb") as report:
        totals = parse_junit(report)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert totals.total == 40_000
    assert peak < 2_000_000
