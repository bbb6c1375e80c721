"""Provenance and bill of materials."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_cd.artifacts.lockfiles import read_lockfiles
from airflow_cd.artifacts.provenance import provenance
from airflow_cd.artifacts.sbom import sbom
from airflow_cd.exceptions import ArtifactError

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
SHA256 = "a" * 64


def test_provenance_has_what_slsa_requires() -> None:
    """Fields of https://slsa.dev/spec/v1.0/provenance and https://in-toto.io/Statement/v1."""
    statement = json.loads(
        provenance(
            release_name="hello-1.0.tar.gz",
            digest=f"sha256:{SHA256}",
            repository="https://token:secret@git.example/hello.git",
            revision="c" * 40,
            tree="d" * 40,
            commands=[["make"]],
            suites={"unit": [["pytest"]]},
            builder_id="https://builder.example",
            invocation_id="hello_delivery/run",
            started_on=AT,
            finished_on=AT,
        )
    )
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "hello-1.0.tar.gz", "digest": {"sha256": SHA256}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["buildType"].startswith("https://")
    assert definition["externalParameters"]["commands"] == [["make"]]
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": "c" * 40, "gitTree": "d" * 40}
    details = statement["predicate"]["runDetails"]
    assert details["builder"] == {"id": "https://builder.example"}
    assert details["metadata"]["startedOn"] == "2026-01-02T03:04:05Z"
    assert "secret" not in json.dumps(statement)


LOCKS = {
    "requirements.txt": f"Foo_Bar==1.2 \\\n  --hash=sha256:{SHA256}\n# a comment\n-e .\nunpinned>=1\n",
    "uv.lock": '[[package]]\nname = "uvdep"\nversion = "2"\nsource = {registry = "x"}\n'
    '[[package]]\nname = "me"\nversion = "0"\nsource = {editable = "."}\n',
    "poetry.lock": '[[package]]\nname = "podep"\nversion = "3"\ngroups = ["dev"]\n',
    "Pipfile.lock": json.dumps({"default": {"pipdep": {"version": "==4"}}, "develop": {}}),
    "package-lock.json": json.dumps(
        {
            "lockfileVersion": 3,
            "packages": {"": {"name": "x"}, "node_modules/@scope/lib": {"version": "5.0.0", "dev": True}},
        }
    ),
    "npm-shrinkwrap.json": json.dumps(
        {
            "lockfileVersion": 1,
            "dependencies": {"a": {"version": "6.0.0", "dependencies": {"b": {"version": "7.0.0"}}}},
        }
    ),
}


def write_locks(folder: Path) -> None:
    for name, content in LOCKS.items():
        (folder / name).write_text(content)


def test_every_lock_file_is_read(tmp_path: Path) -> None:
    write_locks(tmp_path)
    found = read_lockfiles(tmp_path)
    assert found is not None
    assert {(one.ecosystem, one.name, one.version, one.development) for one in found} == {
        ("pypi", "foo-bar", "1.2", False),
        ("pypi", "uvdep", "2", False),
        ("pypi", "podep", "3", True),
        ("pypi", "pipdep", "4", False),
        ("npm", "@scope/lib", "5.0.0", True),
        ("npm", "a", "6.0.0", False),
        ("npm", "b", "7.0.0", False),
    }


def test_the_document_is_reproducible_and_names_packages(tmp_path: Path) -> None:
    write_locks(tmp_path)
    documents = [sbom(tmp_path, name="hello", version="1", created_at=AT) for _ in range(2)]
    assert documents[0] == documents[1] is not None
    content = json.loads(documents[0] or b"")
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    purls = {component["purl"] for component in content["components"]}
    assert {"pkg:pypi/foo-bar@1.2", "pkg:npm/%40scope/lib@5.0.0"} <= purls
    hashes = next(one["hashes"] for one in content["components"] if one["name"] == "foo-bar")
    assert hashes == [{"alg": "SHA-256", "content": SHA256}]
    assert content["metadata"]["timestamp"].startswith("2026-01-02T03:04:05")


def test_no_lock_file_no_document(tmp_path: Path) -> None:
    assert sbom(tmp_path, name="hello", version="1", created_at=AT) is None


@pytest.mark.parametrize("name", ["uv.lock", "package-lock.json", "Pipfile.lock"])
def test_a_malformed_lock_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{[")
    with pytest.raises(ArtifactError, match=name):
        sbom(tmp_path, name="hello", version="1", created_at=AT)
