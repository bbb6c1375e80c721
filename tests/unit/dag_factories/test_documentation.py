"""What a DAG shows of itself, when the definition holds what Markdown and HTML take for their own."""

from __future__ import annotations

from html import unescape

from markdown_it import MarkdownIt

from airflow_cd.dag_factories.documentation import pipeline_doc
from airflow_cd.model.service import Service

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
BRANCH = "x;$(touch${IFS}ran)`id`<img/src=x>|{{7+7}}"
COMMAND = ["sh", "-c", "a | b > `c` <script>alert(1)</script>\n\n# d"]
SERVICE = Service.model_validate(
    {
        "name": "hello",
        "pipeline": "delivery",
        "source": {"repository": "/srv/a`b`<img/src=x>.git", "branch": BRANCH, "path": "a|b`"},
        "build": [COMMAND],
        "environments": [
            {
                "name": "production",
                "target": {"local": {"command": ["app"], "port": 8999}},
                "health": [{"command": COMMAND}],
                "approval": {"approvers": ["<b>bob</b>", "a | b", "**c**"]},
            }
        ],
    }
)


def test_it_is_shown_as_it_is() -> None:
    html = MARKDOWN.render(pipeline_doc(SERVICE, {"production"}))
    shown = " ".join(COMMAND).replace("\n\n", " ")
    for text in (BRANCH, "/srv/a`b`<img/src=x>.git", "a|b`", shown, "command " + shown, "<b>bob</b>, a | b"):
        assert text in unescape(html), text
    for tag in ("<img", "<script", "<b>", "<strong>c", "<h1"):
        assert tag not in html
    assert html.count("<td>") == 4
