"""Bad input gets a message with file, line, value and remedy, and costs nobody else anything."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from textwrap import dedent, indent

import pytest

from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.services_file import kinds
from airflow_cd.model.services_file.loader import Definitions, load_services
from airflow_cd.model.services_file.yaml_lines import Document

GOOD = """
- name: good
  pipeline: deployment
  source: {repository: /srv/git/good.git}
  environments:
    - name: production
      target: {local: {command: [app], port: 9001}}
"""


def load(tmp_path: Path, text: str) -> Definitions:
    file = tmp_path / "services.yaml"
    file.write_text(dedent(text))
    return load_services(file)


def with_good(service: str) -> str:
    return "services:" + indent(dedent(service), "  ") + indent(GOOD, "  ")


def service(line: str, name: str = "bad") -> str:
    """A service in which one line replaces or adds something; it starts in line 2 of the file."""
    key = line.partition(":")[0].strip()
    lines = {
        "pipeline": "pipeline: delivery",
        "source": "source: {repository: /srv/git/bad.git}",
        "environments": "environments: [{name: production, target: {local: {command: [app], port: 9002}}}]",
    }
    lines[key] = line
    return f"\n- name: {name}\n" + "\n".join(f"  {one}" for one in lines.values()) + "\n"


@pytest.mark.parametrize(
    ("line", "at", "says"),
    [
        ("buld: [[make]]", 6, ["unknown key 'buld'", "Did you mean 'build'?"]),
        ("pipeline: delivry", 3, ["'delivry'", "'delivery' or 'deployment'"]),
        ("build: [make all]", 6, ["'make all'", "argv list"]),
        ("build: [[sleep, 5]]", 6, ["got 5", "'5'"]),
        ("build: [[echo, yes]]", 6, ["got True", "quotes"]),
        ("test: {unit: {commands: pytest}}", 6, ["'pytest'", "argv list"]),
        ("test: {unit: {junit: report.xml}}", 6, ["'test.unit.commands' is missing", "Add it"]),
        ("package: {archive: {include: [../secrets]}}", 6, ["'../secrets'", "relative"]),
        ("runner: {kubernetes: {image: a}}", 6, ["'runner.kubernetes.namespace' is missing", "Add it"]),
        ("artifacts: s3://bucket/a", 6, ["store 's3'", "airflow-provider-cd[aws]"]),
        ("runner: docker", 6, ["'docker'", "{docker: {image: ...}}"]),
        ("runner: {docker: {}}", 6, ["'runner.docker.image' is missing", "Add it"]),
        ("runner: {docker: {image: a, memory: 1GB}}", 6, ["'1GB'", "512m"]),
        ("runner: {docker: {image: a, user: root}}", 6, ["'root'"]),
        ("runner: {docker: {image: --privileged}}", 6, ["'--privileged'"]),
        ("runner: {docker: {imge: a}}", 6, ["unknown key 'imge'", "Did you mean 'image'?"]),
        ("package: {image: {repository: hello}}", 6, ["'hello'", "registry.example/shop/hello"]),
        ("package: {image: {repository: 'r.example/hello:1'}}", 6, ["without a tag"]),
        ("package: {image: {repository: r.example/a}, archive: {}}", 6, ["both `archive` and `image`"]),
        (
            "package: {image: {repository: r.example/a}}",
            5,
            ["environments.0.target", "cannot run"],
        ),
        ("environments: [{name: p, target: {docker: {port: 9003}}}]", 5, ["package an image"]),
        ("environments: [{name: p, target: {docker: {}}}]", 5, ["target.docker.port' is missing"]),
        ("environments: [{name: p, target: {}}]", 5, ["exactly one kind", "local, docker"]),
        ("environments: [{name: p, target: {dcker: {port: 1}}}]", 5, ["no target 'dcker'", "docker"]),
        ("runner: ssh", 6, ["no runner 'ssh'", "subprocess"]),
        ("artifacts: ftp://store", 6, ["no artifact store 'ftp'", "file"]),
        ("train: nightly", 6, ["a train that does not exist", "'nightly'"]),
        ("source: {repository: /a, branch: -evil}", 4, ["'-evil'"]),
        ("source: {repository: /a, poll_interval: soon}", 4, ["'soon'", "30s"]),
        ("environments: []", 5, ["environments", "at least 1"]),
    ],
)
def test_a_broken_service_is_reported_and_the_others_load(
    tmp_path: Path, line: str, at: int, says: list[str]
) -> None:
    found = load(tmp_path, with_good(service(line)))
    assert [one.name for one in found.services] == ["good"]
    text = "\n".join(str(error) for error in found.errors)
    assert f"services.yaml:{at}: " in text
    for part in says:
        assert part in text


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("target: {ecs: {cluster: shop}}", ["target 'ecs'", "[aws]", "0.1.0"]),
        ("target: {kubernetes: {namespace: shop}}", ["`manifests`", "`app`"]),
        ("target: {locl: {}}", ["no target 'locl'", "local"]),
        ("target: {local: {command: python app.py, port: 1}}", ["'python app.py'", "argv list"]),
        ("target: {local: {command: [app], port: 99999}}", ["99999"]),
        ("health: [{http: /, tcp: 80}]", ["exactly one of http, tcp and command"]),
        ("health: [{http: /, interval: 5 minutes}]", ["'5 minutes'", "30s"]),
        ('windows: [{deny: "0 18 * *", duration: 1h}]', ["'0 18 * *'", "five fields"]),
        ('windows: [{deny: "0 18 * * 5", duration: 1h, timezone: Mars/Base}]', ["'Mars/Base'", "IANA"]),
        ("windows: [{duration: 1h}]", ["exactly one of allow and deny"]),
        ("approval: {override: maybe}", ["'maybe'", "'allow' or 'deny'"]),
        ("verify: {conn_ids: []}", ["verify.conn_ids", "at least 1"]),
        ("verify: {conn_ids: [a]}", ["demands signed releases", "add `signing: {conn_id: ...}`", "defaults"]),
    ],
)
def test_environments_are_checked_too(tmp_path: Path, entry: str, says: list[str]) -> None:
    target = "" if entry.startswith("target") else "\n        target: {local: {command: [app], port: 9002}}"
    text = f"""
    - name: bad
      pipeline: delivery
      source: {{repository: /srv/git/bad.git}}
      environments:
      - name: production{target}
        {entry}
    """
    found = load(tmp_path, with_good(text))
    assert [one.name for one in found.services] == ["good"]
    problems = "\n".join(str(error) for error in found.errors)
    assert f"services.yaml:{7 if target == '' else 8}: " in problems
    for part in says:
        assert part in problems


def test_signing_may_come_from_the_defaults(tmp_path: Path) -> None:
    demanding = GOOD.rstrip() + "\n      verify: {conn_ids: [release_signing]}\n"
    text = "defaults:\n  signing: {conn_id: release_signing}\nservices:" + indent(demanding, "  ")
    (one,) = load(tmp_path, text).services
    assert one.signing is not None and one.production.verify is not None
    assert (one.signing.conn_id, one.production.verify.conn_ids) == ("release_signing", ("release_signing",))


def test_everything_wrong_with_a_service_is_said_at_once(tmp_path: Path) -> None:
    found = load(tmp_path, with_good(service("pipeline: x\n  buld: []\n  runner: subprocess")))
    assert len(found.errors) == 2


def test_a_line_from_the_defaults_is_named(tmp_path: Path) -> None:
    text = "defaults:\n  source:\n    poll_interval: soon\nservices:" + indent(GOOD, "  ")
    assert "services.yaml:3: " in str(load(tmp_path, text).errors[0])


def test_defaults_are_merged_under_services(tmp_path: Path) -> None:
    text = "defaults:\n  source: {branch: trunk}\n  owner: shop\nservices:" + indent(GOOD, "  ")
    (one,) = load(tmp_path, text).services
    assert (one.source.branch, one.source.repository, one.owner) == ("trunk", "/srv/git/good.git", "shop")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "empty"),
        ("- a\n- b\n", None, "not a mapping"),
        ("services: [\n", 2, "not valid YAML"),
        ("services: []\nservises: []\n", 2, "Did you mean 'services'?"),
        ("services: []\nservices: []\n", 2, "given twice"),
        ("services: {}\n", 1, "not a list"),
        ("defaults: []\n", 1, "not a mapping"),
        ("services:\n- name: a\n  name: b\n", 3, "'name' is given twice"),
        ("services: [{yes: a, on: b}]\n", 1, "given twice"),
        ("services: [{<<: {name: a}, name: b, name: c}]\n", 1, "'name' is given twice"),
        ("services: [!!bool x]\n", None, "not valid YAML"),
        ("services: [!!timestamp x]\n", None, "not valid YAML"),
        ("services: [!!int '']\n", None, "not valid YAML"),
        ("services: [!!str [a]]\n", 1, "expected a scalar"),
        # PyYAML 6.0.4 and newer refuse it before the interpreter does.
        pytest.param(
            "services: " + "[" * 5000 + "]" * 5000, None, "nested too deeply|nesting depth", id="deep"
        ),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        load(tmp_path, text)
    assert "services.yaml" in str(caught.value)
    assert line is None or caught.value.line == line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[yes, 012, 1_000, 12:30, ~, 2026-01-01]", [True, 10, 1000, 750, None, date(2026, 1, 1)]),
        ("['yes', \"012\", !!str 5, !!int '7']", ["yes", "012", "5", 7]),
        ("[&a {x: [1]}, *a, {<<: *a, y: 2}]", [{"x": [1]}, {"x": [1]}, {"x": [1], "y": 2}]),
        ("[{1: a, '1': b}, {<<: [{a: 1}, {a: 2, b: 3}]}]", [{1: "a", "1": "b"}, {"a": 1, "b": 3}]),
        ("[{<<: {a: 1, b: 2}, a: 3}, {a: 3, <<: {a: 1}}]", [{"a": 3, "b": 2}, {"a": 3}]),
        # Keys of two letters: PyYAML 6.0.4 takes keys of one letter in merged mappings for the same key.
        ("[{<<: &b {<<: {xy: 1}, xy: 2}}, *b, {<<: *b, xy: 3}]", [{"xy": 2}, {"xy": 2}, {"xy": 3}]),
    ],
)
def test_values_are_those_of_yaml_1_1(text: str, says: object) -> None:
    assert Document(text, "services.yaml").content == says


def test_an_alias_stands_for_one_thing() -> None:
    powers = "- &x0 [lol]\n" + "".join(f"- &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 6))
    content = Document(powers, "services.yaml").content
    assert content[5][0] is content[5][8]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="nowhere.yaml.*does not exist"):
        load_services(tmp_path / "nowhere.yaml")


def test_a_name_that_is_taken_costs_only_the_second_service(tmp_path: Path) -> None:
    found = load(tmp_path, with_good(GOOD.replace("9001", "9009")))
    assert [one.environments[0].target.local.port for one in found.services] == [9009]  # type: ignore[union-attr]
    assert "two services of this name, the other one in line 2" in str(found.errors[0])
    assert "services.yaml:9: " in str(found.errors[0])


def test_two_environments_cannot_have_one_port(tmp_path: Path) -> None:
    found = load(tmp_path, with_good(GOOD.replace("good", "first")))
    assert [one.name for one in found.services] == ["first"]
    assert "would listen on the same port (got 9001)" in str(found.errors[0])


def test_environment_names_are_unique(tmp_path: Path) -> None:
    twice = GOOD.replace("good", "bad") + GOOD.partition("environments:")[2].replace("9001", "9005")
    assert "'production' is listed twice" in str(load(tmp_path, with_good(twice)).errors[0])


TRAIN = """
trains:
  - name: nightly
    schedule: "0 2 * * *"
    order: [{order}]
"""


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("{after: [good], service: bad}, {after: [bad], service: good}", "cycle: .*good.*bad"),
        ("{after: [goood], service: bad}", "not on it.*Did you mean 'good'"),
    ],
)
def test_the_order_of_a_train_is_checked(tmp_path: Path, order: str, says: str) -> None:
    on_train = GOOD.replace("pipeline: deployment", "pipeline: deployment\n  train: nightly")
    both = on_train + on_train.replace("good", "bad").replace("9001", "9002")
    text = "services:" + indent(both, "  ") + TRAIN.replace("{order}", order)
    errors = load(tmp_path, text).errors
    assert any(re.search(says, str(error)) for error in errors), errors


def test_only_the_service_that_is_needed_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(with_good(service("buld: []")))
    found = load_services(file, only="good")
    assert ([one.name for one in found.services], found.errors) == (["good"], ())


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS["target"], "moon", kinds.Kind(True, "moon", "no_such_module"))
    with pytest.raises(
        DefinitionError, match=r"needs the extra 'moon'.*pip install 'airflow-provider-cd\[moon\]'"
    ):
        kinds.check_kind("target", "moon")
    monkeypatch.setitem(kinds.KINDS["target"], "moon", kinds.Kind(True, "moon", "json"))
    kinds.check_kind("target", "moon")


FREEZE = "{start: 2026-12-24, end: 2026-12-26, reason: Christmas}"


def test_a_freeze_of_the_whole_file_is_every_services(tmp_path: Path) -> None:
    own = service("freezes: [{start: 2026-07-01, end: 2026-07-02 12:00, reason: fair}]")
    found = load(tmp_path, f"freezes:\n- {FREEZE}\n" + with_good(own))
    reasons = {one.name: [freeze.reason for freeze in one.freezes] for one in found.services}
    assert reasons == {"bad": ["Christmas", "fair"], "good": ["Christmas"]}
    assert not found.errors


@pytest.mark.parametrize(
    ("freeze", "says"),
    [
        ("{start: 2026-12-24, end: 2026-12-26}", "'reason' is missing"),
        ("{start: 2026-12-24, end: 2026-12-01, reason: x}", "ends before it starts"),
        ("{start: 2026-12-24, end: tomorrow, reason: x}", "is not a date; write 2026-12-24"),
        ("{start: 2026-12-24, end: 2026-12-26, reason: x, timezone: Mars}", "'Mars'"),
        ("Christmas", "Write a mapping"),
    ],
)
def test_a_wrong_freeze_of_the_whole_file_lets_nothing_through(
    tmp_path: Path, freeze: str, says: str
) -> None:
    """Left out like a broken service, it would not hold what it was meant to hold."""
    with pytest.raises(DefinitionError, match=re.escape(says)) as caught:
        load(tmp_path, f"freezes:\n- {FREEZE}\n- {freeze}\n" + with_good(""))
    assert "services.yaml:3: " in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("when_closed: ask", "'wait' or 'fail'"),
        ("notify: [{events: [deploy], notifier: a.B}]", "'approval_needed', 'deployed', 'rolled_back'"),
        ("notify: [{events: [train_departed], notifier: a.B}]", "which a service never has; use approval_"),
        ("notify: [{on: [deployed], notifier: a.B}]", "notify.0"),
    ],
)
def test_what_is_told_and_what_waits_is_checked(tmp_path: Path, entry: str, says: str) -> None:
    local = "target: {local: {command: [a], port: 1}}"
    in_environment = f"environments: [{{name: production, {local}, {entry}}}]"
    line = service(in_environment if entry.startswith("when_closed") else entry)
    found = load(tmp_path, with_good(line))
    assert [one.name for one in found.services] == ["good"]
    assert says in "\n".join(str(error) for error in found.errors)
