"""What the documentation shows works: files load, commands parse, make has the targets, the site builds."""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from airflow.cli.cli_config import ActionCommand
from benchmarks.__main__ import BENCHMARKS
from markdown_it import MarkdownIt

from airflow_cd.cli.commands import get_cd_commands
from airflow_cd.model.service import Service
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.model.services_file.schema import services_schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FRONT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
# Its blocks are parts of an example that has tests of its own: see test_target_guide.py.
OWN_TARGET = ROOT / "docs" / "guides" / "write-a-target.md"
SHELL = ("sh", "")
LANGUAGES = {*SHELL, "yaml", "python", "toml", "text"}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TOP = ("defaults", "services", "trains", "freezes", "clusters", "maintenance")
# What a shell reads before the command.
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
COMMAND = re.compile(r"airflow cd (?P<cd>.+)|(?:[A-Z_]+=\S+ )*make (?P<make>[a-z]+)")


class Block(NamedTuple):
    """A code block, or code in a sentence, of a page."""

    page: str
    line: int
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for path in [*FRONT, *PAGES]:
        page = str(path.relative_to(ROOT))
        for token in MarkdownIt().enable("table").parse(path.read_text()):
            line = token.map[0] + 1 if token.map else 0
            if token.type == "fence" and not token.info.startswith("{"):
                yield Block(page, line, token.info.strip(), textwrap.dedent(token.content))
            if token.type == "code_block":
                yield Block(page, line, "", token.content)
            for inline in token.children or ():
                if inline.type == "code_inline" and COMMAND.fullmatch(inline.content):
                    yield Block(page, line, "inline", inline.content)


def of(*languages: str) -> Any:
    found = [block for block in BLOCKS if block.language in languages]
    assert found, languages
    return pytest.mark.parametrize("block", found, ids=[f"{block.page}:{block.line}" for block in found])


BLOCKS = list(blocks())


def test_every_block_is_in_a_language_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= {*LANGUAGES, "inline"}


# --- services files


def completed(content: Any) -> dict[str, Any]:
    """Return the whole services file that a fragment is taken from."""
    if isinstance(content, list):
        content = {"environments": content}
    content = without_dots(content)
    if not set(content) <= set(TOP):
        assert set(content) <= set(Service.model_fields), "neither a services file nor a part of a service"
        content = {"services": [content]}
    ports = itertools.count(20000)
    defaults = content.get("defaults", {})
    services = content.get("services") or ([{}] if defaults or "freezes" in content else [])
    services = [completed_service(service, defaults, ports) for service in services]
    return {**content, **({"services": services} if services else {})}


def without_dots(value: Any) -> Any:
    """Leave out `...`, which stands for what a page does not repeat."""
    if isinstance(value, dict):
        return {key: without_dots(one) for key, one in value.items() if key != "..."}
    if isinstance(value, list):
        return [without_dots(one) for one in value if one != "..."]
    return value


def completed_service(
    service: dict[str, Any], defaults: dict[str, Any], ports: Iterator[int]
) -> dict[str, Any]:
    needed = {"name": "fragment", "source": {"repository": "/srv/git/fragment"}, "pipeline": "delivery"}
    full = {**{key: value for key, value in needed.items() if key not in defaults}, **service}
    names = [place["name"] for place in full.get("environments", ())]
    missing = [{"name": name} for name in ("staging", "production") if name not in names]
    places = [completed_environment(place, ports) for place in [*missing, *full.get("environments", ())]]
    # The last one is production.
    full["environments"] = sorted(places, key=lambda place: bool(place["name"] == "production"))
    if any(set(place["target"]) & {"docker", "kubernetes"} for place in full["environments"]):
        full.setdefault("package", {"image": {"repository": "registry.example/fragment"}})
        for place in full["environments"]:
            if "local" in place["target"]:
                place["target"] = {"docker": {"port": next(ports)}}
    return full


def completed_environment(environment: dict[str, Any], ports: Iterator[int]) -> dict[str, Any]:
    local = {"local": {"command": ["python", "src/app.py"], "port": next(ports)}}
    cluster = {"kubernetes": {"namespace": "fragment", "manifests": "k8s"}}
    return {"target": cluster if {"strategy", "drift"} & set(environment) else local, **environment}


@of("yaml")  # type: ignore[untyped-decorator]
def test_the_loader_accepts_every_services_file(block: Block, tmp_path: Path) -> None:
    content = yaml.safe_load(block.text)
    if block.page == str(OWN_TARGET.relative_to(ROOT)):
        return
    if isinstance(content, dict) and "apiVersion" in content:
        assert content["kind"]
        return
    full = completed(content)
    file = tmp_path / "services.yaml"
    file.write_text(yaml.safe_dump(full, sort_keys=False))
    definitions = load_services(file)
    assert not definitions.errors, "\n".join(str(error) for error in definitions.errors)
    assert definitions.services or definitions.clusters
    as_editors_read_it = json.loads(json.dumps(full, default=str))
    jsonschema.Draft202012Validator(services_schema()).validate(as_editors_read_it)


def test_a_mistake_in_a_fragment_is_found(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    wrong = "- name: production\n  approvers: {approvers: [alice]}\n"
    file.write_text(yaml.safe_dump(completed(yaml.safe_load(wrong))))
    assert "approvers" in str(load_services(file).errors)


# --- commands


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise AssertionError(f"{self.prog}: {message}")


def subcommands() -> dict[str, ActionCommand]:
    (group,) = get_cd_commands()
    return {command.name: command for command in group.subcommands}  # type: ignore[union-attr]


def parse(words: list[str]) -> argparse.Namespace:
    """Parse what comes after ``airflow cd`` with the arguments that Airflow's own parser gets."""
    command = subcommands()[words[0]]
    parser = _Parser(prog=f"airflow cd {words[0]}", add_help=False)
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser.parse_args(words[1:])


def commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a block, without variables set for them and without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        words = list(itertools.dropwhile(ASSIGNMENT.fullmatch, words))
        if words:
            yield words


@of(*SHELL)  # type: ignore[untyped-decorator]
def test_every_command_is_valid(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for words in commands(block.text):
        if words[:2] == ["airflow", "cd"]:
            parse(words[2:])
        if words[0] == "make":
            assert words[1] in TARGETS
        if words[1:3] == ["-m", "benchmarks"]:
            assert set(words[3:]) <= set(BENCHMARKS)


@of("inline")  # type: ignore[untyped-decorator]
def test_every_command_in_a_sentence_exists(block: Block) -> None:
    found = COMMAND.fullmatch(block.text)
    assert found is not None
    if found["make"]:
        assert found["make"] in TARGETS
        return
    name, *words = found["cd"].split()
    flags = {flag for argument in subcommands()[name].args for flag in argument.flags}
    assert {word for word in words if word.startswith("--")} <= flags


def test_a_wrong_command_is_found() -> None:
    assert parse(["approve", "hello", "--user", "bob"]).service == "hello"
    with pytest.raises(AssertionError, match="--usr"):
        parse(["approve", "hello", "--usr", "bob"])


# --- other blocks


@of("python")  # type: ignore[untyped-decorator]
def test_python_compiles(block: Block) -> None:
    ast.parse(block.text)


@of("toml")  # type: ignore[untyped-decorator]
def test_toml_is_valid(block: Block) -> None:
    tomllib.loads(block.text)


# --- pages


@pytest.mark.parametrize("page", FRONT, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_pages_name_exist(page: Path) -> None:
    """Pages name files from the root of the package (``targets/record.py``) or of the repository."""
    package = ROOT / "provider" / "airflow_cd"
    folders = {path.name for path in (*ROOT.iterdir(), *package.iterdir()) if path.is_dir()}
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page.read_text())
    ours = [name for name in named if name.partition("/")[0] in folders]
    missing = [name for name in ours if not (ROOT / name).exists() and not (package / name).exists()]
    assert missing == []


def test_the_readme_is_short_and_names_all_test_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 180
    assert "CD_TEST_ALL=1 make test" in text
    assert "CD_TEST_ALL=1 make test" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does: a warning is an error."""
    html = tmp_path_factory.mktemp("site")
    options = ["-q", "-E", "-W", "--keep-going", "-b", "html", "-d", str(html / ".doctrees")]
    argv = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(html)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    return html


@pytest.mark.xdist_group("site")  # built once
def test_the_site_has_every_page(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").exists()


@pytest.mark.xdist_group("site")  # built once
def test_references_are_generated(site: Path) -> None:
    def shown(page: str) -> str:
        return (site / "reference" / f"{page}.html").read_text()

    assert all(f"airflow cd {name}" in shown("cli") for name in subcommands())
    assert all(f">{key}<" in shown("services") for key in ("progress_deadline", "self_approval"))
    assert "AIRFLOW__CD__DATA_DIR" in shown("configuration")
    assert "airflow_cd.exceptions.FieldConflictError" in shown("errors")
