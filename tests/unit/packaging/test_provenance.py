"""
What the statement has to hold.

Required fields: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and "Schema" in
https://slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_cd.packaging.provenance import claim, provenance

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2)))
RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def statement(**changes: Any) -> bytes:
    return provenance(
        **{
            "release_name": "hello-1.0.tar.gz",
            "digest": f"sha256:{'a' * 64}",
            "repository": "https://git.example/hello.git",
            "revision": "c" * 40,
            "tree": "d" * 40,
            "commands": [["make", "all"]],
            "suites": {"unit": [["pytest"]], "lint": [["ruff"]]},
            "builder_id": "https://builder.example",
            "invocation_id": "hello_delivery/run",
            "started_on": AT,
            **changes,
        }
    )


def source(repository: str) -> str:
    content = json.loads(statement(repository=repository))
    definition = content["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["source"] == definition["resolvedDependencies"][0]["uri"]
    return str(definition["externalParameters"]["source"])


def is_uri(value: object) -> bool:
    return isinstance(value, str) and bool(urlsplit(value).scheme)


def test_the_statement_has_its_required_fields() -> None:
    content = json.loads(statement())
    assert set(content) == {"_type", "subject", "predicateType", "predicate"}
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://slsa.dev/provenance/v1"
    (subject,) = content["subject"]
    assert subject == {"name": "hello-1.0.tar.gz", "digest": {"sha256": "a" * 64}}


def test_the_predicate_has_its_required_fields() -> None:
    predicate = json.loads(statement())["predicate"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    known = {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert set(definition) <= known
    assert is_uri(definition["buildType"])
    assert definition["externalParameters"]["commands"] == [["make", "all"]]
    assert definition["externalParameters"]["tests"] == {"unit": [["pytest"]], "lint": [["ruff"]]}
    (dependency,) = definition["resolvedDependencies"]
    assert is_uri(dependency["uri"])
    assert dependency["digest"] == {"gitCommit": "c" * 40, "gitTree": "d" * 40}
    assert set(details) <= {"builder", "metadata", "byproducts"}
    assert is_uri(details["builder"]["id"])
    assert set(details["metadata"]) == {"invocationId", "startedOn"}


def test_times_are_utc() -> None:
    metadata = json.loads(statement())["predicate"]["runDetails"]["metadata"]
    assert metadata["startedOn"] == "2026-01-02T01:04:05Z"
    assert RFC3339_UTC.fullmatch(metadata["startedOn"])
    with pytest.raises(ValueError, match="no time zone"):
        statement(started_on=datetime(2026, 1, 2))


def test_the_bytes_are_canonical() -> None:
    reordered = statement(suites={"lint": [["ruff"]], "unit": [["pytest"]]})
    assert (
        statement()
        == reordered
        == json.dumps(json.loads(reordered), sort_keys=True, separators=(",", ":")).encode()
    )


@pytest.mark.parametrize(
    ("repository", "uri"),
    [
        ("https://git.example/a.git", "https://git.example/a.git"),
        ("https://token@git.example:8443/a.git", "https://git.example:8443/a.git"),
        ("https://user:secret@git.example/a.git?token=secret#secret", "https://git.example/a.git"),
        ("https://us%40er:p@ss:w@git.example/a.git", "https://git.example/a.git"),
        ("ssh://git@git.example:22/a.git", "ssh://git.example:22/a.git"),
        ("git@git.example:team/a.git", "ssh://git.example/team/a.git"),
        ("git.example:/srv/a.git", "ssh://git.example/srv/a.git"),
        ("/srv/my git/a.git", "file:///srv/my%20git/a.git"),
        ("file:///srv/a.git", "file:///srv/a.git"),
    ],
)
def test_repositories_are_uris_without_secrets(repository: str, uri: str) -> None:
    assert source(repository) == f"git+{uri}@{'c' * 40}"


def test_a_statement_says_what_it_is_about() -> None:
    assert claim(statement()) == ([f"sha256:{'a' * 64}"], ["c" * 40])


@pytest.mark.parametrize(
    "change", [{"_type": "x"}, {"predicateType": "x"}, {"subject": 1}, {"predicate": []}]
)
def test_what_is_no_provenance_claims_nothing(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="https://slsa.dev/provenance/v1|not SLSA v1"):
        claim(json.dumps({**json.loads(statement()), **change}).encode())
    with pytest.raises(ValueError, match="not SLSA v1|Expecting"):
        claim(b"[]")
