"""What YAML and JSON may say, however hostile its author."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_cd.exceptions import ManifestError
from airflow_cd.packaging.manifest_files import documents


def billion(line: Callable[[str, str], str]) -> str:
    letters = "abcdefghijkl"
    return "a: &a {x: 1}\n" + "".join(line(a, b) for a, b in zip(letters, letters[1:], strict=False))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (billion(lambda a, b: f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"), "aliases written out"),
        (billion(lambda a, b: f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 10)}]}}\n"), "aliases written out"),
        ("a: &a {b: *a}\n", "line 1: this contains itself"),
        # PyYAML 6.0.4 and newer refuse it before our own check does.
        pytest.param("[" * 200_000, "(nested too deeply|nesting depth)", id="deep"),
        ("\n".join(" " * n + "a:" for n in range(500)), "line 101: this is nested too deeply"),
        ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 3\n", "line 3: .*key 'a' is given twice"),
        ("---\na: 1\n---\nb: 1\nc: {d: 1, d: 2}\n", "line 5: .*key 'd' is given twice"),
        ("a: *nobody\n", "line 1: .*undefined alias"),
        ("a: [\n", "line 2: this is not valid YAML"),
        ("a: \x00\n", "document 1 .*not valid YAML"),
        ("a: !!binary YWJj\n", "kind bytes"),
        ("a: !!timestamp 2026-01-02\n", "kind date"),
        ("a: !!set {b}\n", "kind set"),
        ("a: .inf\n", "inf is not a number"),
        ("8080: a\n", "key 8080 is not text; quote it"),
        ("a: !!int x\n", "document 1 .*not valid YAML"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 characters"),
    ],
)
def test_hostile_yaml_is_refused_at_once(text: str, says: str) -> None:
    with pytest.raises(ManifestError, match=rf"^k8s/a\.yaml, .*{says}"):
        documents(text, "k8s/a.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,\n"a": 2}', "document 1: the key 'a' is given twice"),
        ('{"a": 1,\n"b" 2}', "line 2: this is not valid JSON"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1e999}', "inf is not a number"),
        ("[" * 200_000, "nested too deeply"),
        ("[" * 300 + "]" * 300, "nested too deeply"),
    ],
)
def test_hostile_json_is_refused_at_once(text: str, says: str) -> None:
    with pytest.raises(ManifestError, match=rf"^k8s/a\.json, .*{says}"):
        documents(text, "k8s/a.json")


def test_values_are_what_kubernetes_takes_them_for() -> None:
    data = "data: {time: 12:30, day: 2026-01-02, quoted: '8080', equal: =, on: &a {mode: 0644}, again: *a}\n"
    found = documents(data.replace("on:", '"on":'), "k8s/a.yaml")[0].content["data"]
    assert found == {
        "time": "12:30",
        "day": "2026-01-02",
        "quoted": "8080",
        "equal": "=",
        "on": {"mode": 420},
        "again": {"mode": 420},
    }


@pytest.mark.parametrize("before", range(1, 60))
def test_a_key_is_given_once_whatever_documents_came_before(before: int) -> None:
    merged = "---\ny: {<<: {a: 1}, b: 1}\n"
    with pytest.raises(ManifestError, match="the key 'b' is given twice"):
        documents(merged * before + "---\n{b: 1, b: 2}\n", "k8s/a.yaml")
