"""The bill of materials is valid CycloneDX, and the same for the same source."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from airflow_cd.exceptions import ArtifactError
from airflow_cd.packaging.sbom import sbom

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
ROOT = Path(__file__).parents[3]
REQUIREMENTS = f"zope.interface==1.2 --hash=sha256:{'a' * 64} --hash=sha512:{'b' * 128}\nA_b==2!1.0+x\n"
NPM = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "me"},
        "node_modules/@scope/lib": {"version": "5.0.0", "integrity": "sha1-" + "A" * 27 + "=", "dev": True},
    },
}


def document(folder: Path, **changes: Any) -> dict[str, Any]:
    made = sbom(folder, **{"name": "hello", "version": "1", "created_at": AT, **changes})
    assert made is not None
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode())
    assert error is None, getattr(error.data, "message", "") if error else ""
    content: dict[str, Any] = json.loads(made)
    return content


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS)
    (tmp_path / "package-lock.json").write_text(json.dumps(NPM))
    return tmp_path


def test_the_document_is_valid_and_says_what_is_locked(source: Path) -> None:
    content = document(source)
    assert content["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    assert content["metadata"]["component"]["name"] == "hello"
    lib, a_b, zope = content["components"]
    assert [one["purl"] for one in (lib, a_b, zope)] == [
        "pkg:npm/%40scope/lib@5.0.0",
        "pkg:pypi/a-b@2%211.0%2Bx",
        "pkg:pypi/zope-interface@1.2",
    ]
    assert (lib["group"], lib["name"], lib["scope"], zope["scope"]) == (
        "@scope",
        "lib",
        "optional",
        "required",
    )
    assert lib["hashes"] == [{"alg": "SHA-1", "content": "0" * 40}]
    assert {one["alg"]: one["content"] for one in zope["hashes"]} == {
        "SHA-256": "a" * 64,
        "SHA-512": "b" * 128,
    }
    assert zope["properties"] == [{"name": "cd:lockfile", "value": "requirements.txt"}]
    needs = {one["ref"]: one.get("dependsOn", []) for one in content["dependencies"]}
    assert set(needs[content["metadata"]["component"]["bom-ref"]]) == {
        one["bom-ref"] for one in (lib, a_b, zope)
    }


def test_processes_agree_on_the_bytes(source: Path) -> None:
    code = "import sys; from pathlib import Path; from datetime import datetime, timezone; "
    code += "from airflow_cd.packaging.sbom import sbom; sys.stdout.buffer.write(sbom(Path(sys.argv[1]), "
    code += "name='hello', version='1', created_at=datetime(2026, 1, 2, tzinfo=timezone.utc)))"
    made = [
        subprocess.run(
            [sys.executable, "-c", code, str(source)],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert made[0] == made[1]


def test_another_content_has_another_serial_number(source: Path) -> None:
    before = document(source)["serialNumber"]
    assert document(source)["serialNumber"] == before
    assert document(source, version="2")["serialNumber"] != before
    (source / "requirements.txt").write_text(REQUIREMENTS + "more==1\n")
    assert document(source)["serialNumber"] != before


def test_this_projects_own_lock_file_makes_a_valid_document(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_bytes((ROOT / "uv.lock").read_bytes())
    components = {one["name"]: one for one in document(tmp_path)["components"]}
    assert len(components) > 100
    assert (components["pydantic"]["scope"], components["pytest"]["scope"]) == ("required", "optional")
    assert components["pydantic"]["hashes"]
    assert "airflow-provider-cd" not in components


def test_without_a_lock_file_there_is_no_document(tmp_path: Path) -> None:
    assert sbom(tmp_path, name="hello", version="1", created_at=AT) is None
    # Ranges say what may be installed: a document without components would say that nothing is.
    (tmp_path / "requirements.txt").write_text("django>=4\n")
    (tmp_path / "requirements-dir.txt").mkdir()
    assert sbom(tmp_path, name="hello", version="1", created_at=AT) is None
    (tmp_path / "package-lock.json").write_text('{"lockfileVersion": 3, "packages": {}}')
    assert "components" not in document(tmp_path)


def test_needed_in_production_wins_over_needed_in_development(tmp_path: Path) -> None:
    (tmp_path / "requirements-dev.txt").write_text("a==1\nb==1\n")
    (tmp_path / "requirements.txt").write_text("a==1\n")
    scopes = {one["name"]: one["scope"] for one in document(tmp_path)["components"]}
    assert scopes == {"a": "required", "b": "optional"}


MALFORMED = {
    "uv.lock": ['[[package]]\nname = "a"\nversion = "1', "package = 3", "[[package]]\nversion = '1'"],
    "poetry.lock": ["[[package]]\nname = 'a'", "[[package]]\nname = 3\nversion = '1'"],
    "pylock.toml": ["[[packages]]\nname = 'a'\nversion = 1"],
    "Pipfile.lock": ['{"default": {"a": {"version": 1}}}', "[]", '{"default": 1}', "{\n\n"],
    "package-lock.json": [
        '{"packages": {"node_modules/a": {"version": 1}}}',
        '{"packages": {"node_modules/a": {"version": "1", "integrity": "sha1-!?"}}}',
        '{"dependencies": {"a": {}}}',
        '{"a":' * 100_000,
    ],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in MALFORMED.items() for text in texts]
)
def test_a_malformed_lock_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ArtifactError, match=f"{name} cannot be read: .*generate it again"):
        sbom(tmp_path, name="hello", version="1", created_at=AT)


def test_the_line_of_a_syntax_error_is_said(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("a = 1\nb = [\n")
    with pytest.raises(ArtifactError, match="(?i)line|end of document"):
        sbom(tmp_path, name="hello", version="1", created_at=AT)
    (tmp_path / "uv.lock").write_text("a = 1\nb = ?\n")
    with pytest.raises(ArtifactError, match="line 2"):
        sbom(tmp_path, name="hello", version="1", created_at=AT)
    (tmp_path / "uv.lock").unlink()
    (tmp_path / "Pipfile.lock").write_text("{\n\n?")
    with pytest.raises(ArtifactError, match="line 3"):
        sbom(tmp_path, name="hello", version="1", created_at=AT)


def test_text_in_another_encoding_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"a==1 # \xff\n")
    with pytest.raises(ArtifactError, match="requirements.txt cannot be read"):
        sbom(tmp_path, name="hello", version="1", created_at=AT)
