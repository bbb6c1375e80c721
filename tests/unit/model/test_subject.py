"""What gets into addresses and queries stays what it is there."""

from __future__ import annotations

import json
import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_cd.exceptions import MetricError
from airflow_cd.model.subject import Subject, check_promql, check_url, fill_promql, fill_url

SUBJECT = Subject(
    service="hello",
    environment="production",
    version="1.2.0+b7",
    revision="0" * 40,
    digest="sha256:abc",
    namespace="shop",
    canary="hello-canary",
    stable="hello",
)


def about(version: str) -> Subject:
    return SUBJECT.model_copy(update={"version": version})


def test_placeholders_are_filled_in() -> None:
    query = 'sum(rate(errors{app="${service}", pod=~"${canary}-.*"}[1m]))'
    assert fill_promql(query, SUBJECT) == 'sum(rate(errors{app="hello", pod=~"hello-canary-.*"}[1m]))'
    assert fill_url("http://${canary}.${namespace}/m?v=${version}", SUBJECT) == (
        "http://hello-canary.shop/m?v=1.2.0%2Bb7"
    )


def test_a_version_in_a_regular_expression_matches_itself_only() -> None:
    filled = fill_promql('errors{version=~"${version}|x"}', SUBJECT)
    assert filled == 'errors{version=~"1\\\\.2\\\\.0\\\\+b7|x"}'
    assert fill_promql("errors{version!~`${version}`}", SUBJECT) == "errors{version!~`1\\.2\\.0\\+b7`}"


def test_dollars_of_regular_expressions_and_of_label_replace_stay() -> None:
    query = 'label_replace(up{path=~"^/api$"}, "a", "$1-$${2}", "b", "(.*)")'
    check_promql(query)
    assert fill_promql(query, SUBJECT) == query.replace("$${", "${")


@given(st.text())
def test_no_value_gets_out_of_its_quotes(version: str) -> None:
    filled = fill_promql('a{b="${version}"}', about(version))
    quoted = filled.removeprefix("a{b=").removesuffix("}")
    assert re.fullmatch(r'"(?:[^"\\\n]|\\.)*"', quoted, re.DOTALL)
    # Go and JSON have these escapes in common.
    assert json.loads(quoted, strict=False) == version


@given(st.text())
def test_no_value_gets_out_of_its_part_of_an_address(version: str) -> None:
    filled = fill_url("http://host/a/${version}/b?c=${version}", about(version))
    parts = urlsplit(filled)
    assert parts.netloc == "host"
    assert [unquote(part) for part in parts.path.split("/")] == ["", "a", version, "b"]
    assert unquote(parts.query) == f"c={version}"


def test_backquotes_cannot_be_left_either() -> None:
    with pytest.raises(MetricError, match="use other quotes"):
        fill_promql("a{b=`${version}`}", about("1` or vector(1) #"))


def test_what_a_target_does_not_have_cannot_be_measured_by() -> None:
    nameless = SUBJECT.model_copy(update={"canary": None})
    with pytest.raises(MetricError, match=r"no \$\{canary\} in production"):
        fill_url("http://${canary}/", nameless)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ('errors{app="${servce}"}', "Did you mean 'service'?"),
        ('errors{app="${service"}', "unknown placeholder"),
        ("errors{app=${service}}", "outside of quotes"),
        ("${service}_errors", "outside of quotes"),
        ('errors{app="a}', "a quote that is not closed"),
        ("sum(errors", "a '(' that is not closed"),
        ("sum errors)", "a ')' that closes nothing"),
        ("sum(errors]", "a ']' that closes nothing"),
    ],
)
def test_a_slip_in_a_query_is_found_before_it_is_sent(query: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_promql(query)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "query",
    [
        "sum(rate(a[5m])) / sum(rate(b[5m])) # it's a (comment",
        """a{b='it"s', c="it's", d=`"'`, e="\\"}"}""",
        "1 - avg_over_time(up[1m] @ end())",
    ],
)
def test_what_promql_allows_is_let_through(query: str) -> None:
    check_promql(query)


def test_an_unknown_placeholder_in_an_address_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"\$\{service\}, \$\{environment\}"):
        check_url("http://${pod}/")
