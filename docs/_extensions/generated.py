"""
Sphinx extension: pages that are generated from the package, and links into the repository.

A line ``<!-- generated: NAME -->`` in a page is replaced by the reference of that name when the site is
built, so that a reference cannot differ from the code. Relative links to files outside ``docs``, which work
in the repository, lead to the repository on the site.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from sphinx.application import Sphinx

_REPOSITORY = "https://github.com/airflow-provider-cd/airflow-provider-cd/blob/main"
_MARKER = re.compile(r"^<!-- generated: ([a-z]+) -->$", re.MULTILINE)
_OUTSIDE = re.compile(
    r"\]\((?:\.\./)+((?:examples|README|CONTRIBUTING|SECURITY|CHANGELOG|docker-compose)[^)]*)\)"
)
_ROOTS = (
    ("services[]", "Service"),
    ("trains[]", "Train"),
    ("freezes[]", "Freeze"),
    ("clusters[]", "Cluster"),
    ("maintenance", "Maintenance"),
)


def services() -> str:
    """Return the reference of services files: one table for each mapping, from the JSON schema."""
    from airflow_cd.model.services_file.schema import services_schema

    schema = services_schema()
    places = _places(schema["$defs"])
    top = _table(schema["properties"], [], places)
    sections = [f"## All keys\n\n{top}"]
    for model, paths in places.items():
        definition = _mapping(schema["$defs"][model])
        also = f"Also at {', '.join(f'`{path}`' for path in paths[1:])}.\n\n" if paths[1:] else ""
        summary = definition.get("description", "")
        table = _table(definition["properties"], definition.get("required", []), places)
        sections.append(f"(services-{model.lower()})=\n\n### `{paths[0]}`\n\n{summary}\n\n{also}{table}")
    return "\n\n".join(sections)


def _places(definitions: dict[str, Any]) -> dict[str, list[str]]:
    """Return where each mapping stands in a services file, in the order of reading."""
    found: dict[str, list[str]] = {}

    def visit(path: str, model: str) -> None:
        paths = found.setdefault(model, [])
        paths.append(path)
        if len(paths) == 1:
            for key, written in _mapping(definitions[model])["properties"].items():
                for name, suffix in _references(written):
                    visit(f"{path}.{key}{suffix}", name)

    for path, model in _ROOTS:
        visit(path, model)
    return found


def _references(written: dict[str, Any], suffix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the models a key holds, and what the path gets where it holds several of them."""
    if "$ref" in written:
        yield written["$ref"].rpartition("/")[2], suffix
    for kind in written.get("anyOf", ()):
        yield from _references(kind, suffix)
    if "items" in written:
        yield from _references(written["items"], f"{suffix}[]")
    for kind in written.get("patternProperties", {}).values():
        yield from _references(kind, f"{suffix}.<name>")


def _mapping(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the long form of a definition that has a short one, too."""
    return next(kind for kind in definition.get("anyOf", [definition]) if "properties" in kind)


def _table(properties: dict[str, Any], required: list[str], places: dict[str, list[str]]) -> str:
    lines = ["| key | meaning | default | example |", "|---|---|---|---|"]
    for key, written in properties.items():
        meaning = written["description"]
        for name, _ in dict.fromkeys(_references(written)):
            meaning += f"; see [`{places[name][0]}`](#services-{name.lower()})"
        default = "required" if key in required else _code(written.get("default"))
        lines.append(f"| `{key}` | {_cell(meaning)} | {default} | {_code(*written['examples'][:3])} |")
    return "\n".join(lines)


def _code(*values: Any) -> str:
    texts = []
    for value in values:
        if value is None or value == {} or value == []:
            continue
        if isinstance(value, (dict, list)):
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).strip()
        else:
            text = value if isinstance(value, str) else json.dumps(value)
        ticks = "``" if "`" in text else "`"
        texts.append(f"{ticks}{text}{ticks}")
    return _cell(", ".join(texts))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def cli() -> str:
    """Return the reference of ``airflow cd``, from the definitions that Airflow makes its parser of."""
    from airflow_cd.cli.commands import get_cd_commands

    sections = []
    for command in get_cd_commands()[0].subcommands:
        parser = argparse.ArgumentParser(prog=f"airflow cd {command.name}", add_help=False)
        rows = ["| argument | meaning | default |", "|---|---|---|"]
        for argument in command.args:
            argument.add_to_parser(parser)
            default = argument.kwargs.get("default")
            shown = "" if default in (None, "", False) else f"`{default}`"
            flags = ", ".join(f"`{flag}`" for flag in argument.flags)
            rows.append(f"| {flags} | {_cell(argument.kwargs.get('help', ''))} | {shown} |")
        usage = parser.format_usage().removeprefix("usage: ")
        table = "\n".join(rows)
        sections.append(
            f"## `airflow cd {command.name}`\n\n{command.help}.\n\n```text\n{usage}```\n\n{table}"
        )
    return "\n\n".join(sections)


def config() -> str:
    """Return the reference of the options in Airflow's configuration, and of the connection types."""
    from airflow_cd.get_provider_info import get_provider_info

    info = get_provider_info()
    parts = []
    for section, described in info["config"].items():
        parts.append(f"## `[{section}]`\n\n{described['description']}\n")
        parts.append("| option | meaning | default | example | environment variable |\n|---|---|---|---|---|")
        for name, option in described["options"].items():
            variable = f"AIRFLOW__{section.upper()}__{name.upper()}"
            cells = (_code(option["default"] or None), _code(option["example"]), f"`{variable}`")
            parts.append(f"| `{name}` | {option['description']} | {' | '.join(cells)} |")
    parts.append("\n## Connection types\n")
    parts.append("| type | name in the UI | hook | fields beside Airflow's own |\n|---|---|---|---|")
    for connection in info["connection-types"]:
        fields = ", ".join(f"`{name}`" for name in connection.get("conn-fields", {}))
        hook = connection["hook-class-name"]
        parts.append(
            f"| `{connection['connection-type']}` | {connection['hook-name']} | `{hook}` | {fields} |"
        )
    return "\n".join(parts)


_GENERATED: dict[str, Callable[[], str]] = {"services": services, "cli": cli, "config": config}


def _complete(app: Sphinx, docname: str, source: list[str]) -> None:
    text = _MARKER.sub(lambda match: _GENERATED[match[1]](), source[0])
    source[0] = _OUTSIDE.sub(rf"]({_REPOSITORY}/\1)", text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _complete)
    return {"parallel_read_safe": True}
