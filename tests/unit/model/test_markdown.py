"""Other people's words in Markdown, read by a parser that allows everything."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from airflow_cd.model.text import cell, code, escape, printable

HOSTILE = [
    "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "![x](http://evil.example/x.png) [approve](javascript:alert(1)) <http://evil.example>",
    "[x]: http://evil.example",
    "**approved by bob** ~~not~~ `code` &lt;b&gt; &#60;",
    "```\n\n# approved by security\n\n- yes\n\n> quoted\n\n---",
    "a | b | c\n|---|---|",
    "back\\slash \\` \\\\` ``` `` ` \\",
    "`",
    "{{ params }} {% raw %} $(id) \\(x\\)",
]
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown(html: str, tag: str) -> str:
    """Return the text between the first and the last of these tags, which holds no other tag."""
    found = re.fullmatch(f".*?<{tag}>(.*)</{tag}>.*", html.strip(), re.DOTALL)
    assert found, html
    assert "<" not in found[1], html
    return unescape(found[1])


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_words_are_shown_as_they_are(text: str) -> None:
    assert shown(MARKDOWN.render(f"- by {escape(text)}"), "li") == "by " + words(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_code_is_shown_as_it_is(text: str) -> None:
    assert shown(MARKDOWN.render(f"- by {code(text)}"), "code") == words(text)


@pytest.mark.parametrize("write", [escape, code])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(write: Callable[[str], str], text: str) -> None:
    html = MARKDOWN.render(f"| one | two |\n|---|---|\n| {cell(write(text))} | end |")
    assert html.count("<td>") == 2
    assert "<td>end</td>" in html


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("` `` ```")
def test_no_text_makes_markup(text: str) -> None:
    line = printable(text, 200)
    if not words(line):
        return
    assert shown(MARKDOWN.render(f"- by {escape(line)}"), "li") == "by " + words(line)
    assert shown(MARKDOWN.render(f"- by {code(line)} end"), "code") == words(line)
