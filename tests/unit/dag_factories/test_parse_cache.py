"""A remembered services file says what the file says, or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.dag_factories import load_dags, parse_cache

SERVICES = "services:" + "".join(
    f"""
  - name: svc{i}
    pipeline: deployment
    owner: team{i}
    source: {{repository: /srv/git/svc{i}.git}}
    environments: [{{name: production, target: {{local: {{command: [app], port: {9000 + i}}}}}}}]
"""
    for i in range(100)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a DAG file; its data folder is its own."""
    monkeypatch.setattr(parse_cache, "_folder", lambda: tmp_path / "parsed")
    return tmp_path


def dags(folder: Path, services: str = SERVICES) -> dict[str, Any]:
    (folder / "services.yaml").write_text(services)
    namespace: dict[str, Any] = {"__file__": str(folder / "services.py")}
    load_dags("services.yaml", namespace)
    del namespace["__file__"]
    return namespace


def owners(folder: Path, services: str = SERVICES) -> dict[str, str]:
    return {
        dag_id: dag.get_task("build").owner
        for dag_id, dag in dags(folder, services).items()
        if "dep" in dag_id
    }


def remembered(folder: Path) -> list[Path]:
    return sorted((folder / "parsed").iterdir())


@pytest.fixture(params=["all of it", "one service"])
def expected(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What there is to find: every owner, or that of the one service whose task starts."""
    if request.param == "all of it":
        return {f"svc{i}_deployment": f"team{i}" for i in range(100)}
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "svc7_deployment")
    return {"svc7_deployment": "team7"}


def test_a_remembered_file_is_not_read_as_yaml_again(
    folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert owners(folder) == expected
    (file,) = remembered(folder)
    monkeypatch.setattr("yaml.load", None)
    assert owners(folder) == expected
    assert remembered(folder) == [file]


def test_an_edited_file_is_another_file(folder: Path, expected: dict[str, str]) -> None:
    owners(folder)
    edited = owners(folder, SERVICES.replace("team7\n", "another\n"))
    assert edited == {**expected, "svc7_deployment": "another"}
    assert owners(folder) == expected


def _flip_one_letter(data: bytes) -> bytes:
    return data.replace(b'"team7"', b'"tram7"')


def _take_another_services(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    name, _, rest = lines[9].partition(b"\t")
    assert name == b'"svc8"'
    return data.replace(lines[8], b'"svc7"\t' + rest)


def _drop_a_line(data: bytes) -> bytes:
    return b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b'"svc7"'))


@pytest.mark.parametrize(
    "damage",
    [
        _flip_one_letter,
        _take_another_services,
        _drop_a_line,
        lambda data: data[: len(data) // 20],
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: b"{}",
    ],
)
def test_what_is_damaged_is_not_believed(
    folder: Path, expected: dict[str, str], damage: Callable[[bytes], bytes]
) -> None:
    owners(folder)
    (file,) = remembered(folder)
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    assert owners(folder) == expected
    assert file.read_bytes() == whole


def test_the_lines_of_another_file_are_not_believed(folder: Path, expected: dict[str, str]) -> None:
    owners(folder, SERVICES.replace("team", "another"))
    (other,) = remembered(folder)
    owners(folder)
    (file,) = {*remembered(folder)} - {other}
    file.write_bytes(other.read_bytes())
    assert owners(folder) == expected


def test_what_somebody_else_can_write_is_not_believed(
    folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners(folder)
    (file,) = remembered(folder)
    assert file.stat().st_mode & 0o777 == 0o600
    believed: list[bytes] = []
    unpack = parse_cache.unpack
    monkeypatch.setattr(parse_cache, "unpack", lambda data, key: believed.append(data) or unpack(data, key))  # type: ignore[func-returns-value]
    monkeypatch.setattr(
        parse_cache,
        "unpack_one",
        lambda data, *args: believed.append(data) or unpack(data, b""),  # type: ignore[func-returns-value]
    )
    file.chmod(0o666)
    assert owners(folder) == expected
    assert not believed


def test_a_folder_that_cannot_be_written_costs_only_time(folder: Path, expected: dict[str, str]) -> None:
    (folder / "parsed").write_text("in the way")
    assert owners(folder) == expected


@pytest.mark.parametrize("value", ["2026-01-01", "!!set {a: null}", "!!binary aGk=", ".nan", "{1: a}"])
def test_what_json_cannot_say_is_not_remembered(folder: Path, value: str) -> None:
    namespace = dags(folder, SERVICES + f"    env: {value}\n")
    assert "errors_in_services_yaml" in namespace
    assert not (folder / "parsed").exists()


def test_old_files_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_cache, "_KEPT", 2)
    for number in range(4):
        dags(folder, f"{SERVICES}# {number}\n")
        for age, file in enumerate(sorted(remembered(folder), key=lambda one: one.stat().st_mtime)):
            os.utime(file, (age, age))
    assert len(remembered(folder)) == 2


def test_a_task_runs_the_service_whose_name_it_is_not_a_second_one_of_it(
    folder: Path, expected: dict[str, str]
) -> None:
    twice = SERVICES.replace("name: svc9\n", "name: svc7\n")
    without = {dag_id: owner for dag_id, owner in expected.items() if dag_id != "svc9_deployment"}
    for _ in "12":
        found = owners(folder, twice)
        found.pop("errors_in_services_yaml", None)
        assert found == without


def test_dates_of_freezes_are_remembered_as_they_are_written(
    folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    freezes = "[{start: 2026-12-24, end: 2026-12-26 18:00:00, reason: Christmas}]"
    frozen = f"freezes: {freezes}\ndefaults: {{freezes: {freezes}}}\n{SERVICES}    freezes: {freezes}\n"

    def ends() -> set[str]:
        # svc7 has the file's and the defaults' freeze.
        service = dags(folder, frozen)["svc7_deployment"].get_task("package").service
        return {freeze.ends_at.isoformat() for freeze in service.freezes}

    first = ends()
    assert first == {"2026-12-26T18:00:00+00:00"}
    monkeypatch.setattr("yaml.load", None)
    assert ends() == first
