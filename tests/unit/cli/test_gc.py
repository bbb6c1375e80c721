"""``airflow cd gc``: as it is typed, against a real store and a server that answers as Airflow does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.support.garbage import Garbage
from tests.unit.cli.pretended_airflow import PretendedAirflow, answers, pretended_airflow
from tests.unit.cli.typed import typed

from airflow_cd.retention import collection

GONE = answers(404, {"detail": "not found"})


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedAirflow]:
    monkeypatch.setenv("AIRFLOW_CD_PASSWORD", "right")
    with pretended_airflow() as server:
        yield server


@pytest.fixture
def garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Garbage:
    made = Garbage(tmp_path, monkeypatch)
    monkeypatch.setattr(collection, "datetime", SimpleNamespace(now=lambda zone: made.now))
    service = made.service().model_dump(mode="json", exclude_unset=True)
    (tmp_path / "services.yaml").write_text(yaml.safe_dump({"services": [service]}))
    return made


@pytest.fixture
def gc(airflow: PretendedAirflow, garbage: Garbage, tmp_path: Path) -> Any:
    def run(*arguments: str) -> int:
        file = ("--file", str(tmp_path / "services.yaml"))
        try:
            typed("gc", *arguments, *file, "--user", "bob", "--api-url", airflow.url)
        except SystemExit as end:
            assert end.code == 1
            return 1
        return 0

    return run


def test_it_prints_what_would_be_removed_and_then_removes_it(
    garbage: Garbage, gc: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (old, _), _ = garbage.release("old"), garbage.release("newest", days=49)
    assert gc("--dry-run") == 0
    printed, progress = capsys.readouterr()
    assert garbage.has(old.digest) and "Nothing was removed" in printed
    assert "hello: collecting" in progress
    assert gc() == 0
    printed = capsys.readouterr().out
    assert not garbage.has(old.digest)
    head, first, *_ = printed.splitlines()
    assert head.split() == ["SERVICE", "WHAT", "REMOVED", "KEPT", "WHY", "KEPT"]
    assert first.startswith("hello    releases") and first.endswith("1 among the newest 1")


def test_it_prints_json(garbage: Garbage, gc: Any, capsys: pytest.CaptureFixture[str]) -> None:
    garbage.release("old")
    garbage.release("newest", days=49)
    assert gc("--json", "--dry-run", "hello") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dry_run"] and [row["what"] for row in found["rows"]] == [
        "releases",
        "workspaces",
        "decisions",
    ]
    assert found["rows"][0]["removed"]["count"] == 1


def test_a_run_that_airflow_says_is_running_keeps_its_release(
    garbage: Garbage, gc: Any, airflow: PretendedAirflow
) -> None:
    made = [garbage.release(text, days=50 - n)[0] for n, text in enumerate(("ended", "running", "newest"))]
    for text, state in (("ended", "failed"), ("running", "running")):
        airflow.runs[f"run_{text}"] = {"dag_id": "hello_delivery", "state": state}
    assert gc() == 0
    assert [garbage.has(one.digest) for one in made] == [False, True, True]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_nothing_is_removed_where_airflow_does_not_know(
    garbage: Garbage, gc: Any, airflow: PretendedAirflow, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """As when the address is that of another Airflow."""
    (old, _), _ = garbage.release("old"), garbage.release("newest", days=49)
    fault = answers(status, {"detail": "no DAG here"})
    airflow.fails("GET", "/dags/hello_delivery", fault)
    assert gc() == 1
    assert garbage.has(old.digest) and "its runs are not known" in capsys.readouterr().out


def test_a_run_that_was_deleted_keeps_nothing(garbage: Garbage, gc: Any, airflow: PretendedAirflow) -> None:
    (old, ref), _ = garbage.release("old"), garbage.release("newest", days=49)
    garbage.use(old, ref, run="1", dag_id="hello_deployment")  # what the service was before
    assert gc() == 0 and not garbage.has(old.digest)


def test_options_win_over_the_file(garbage: Garbage, gc: Any) -> None:
    made = [garbage.release(text, days=days)[0] for text, days in (("a", 50), ("b", 40), ("c", 5), ("d", 4))]
    assert gc("--keep", "3", "--older-than", "3d") == 0
    assert [garbage.has(one.digest) for one in made] == [False, True, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--older-than", "long"), "--older-than long is not a duration"),
        (("--unrecorded", "-1d"), "expected one argument"),
        (("--keep", "0"), "--keep 0 is below 1"),
        (("hullo",), "No such service"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    airflow: PretendedAirflow,
    tmp_path: Path,
    garbage: Garbage,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        typed("gc", *arguments, "--file", str(tmp_path / "services.yaml"), "--user", "bob")
    assert message in f"{end.value.code} {capsys.readouterr().err}"


def test_a_broken_service_is_named_and_keeps_its_releases(
    garbage: Garbage, gc: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = garbage.release("old", service="broken"), garbage.release("new", service="broken", days=49)
    content = yaml.safe_load((tmp_path / "services.yaml").read_text())
    content["services"].append({"name": "broken"})
    (tmp_path / "services.yaml").write_text(yaml.safe_dump(content))
    assert gc() == 1
    printed, problems = capsys.readouterr()
    assert "broken" in problems and "scratch" not in printed
    assert garbage.has(old[0].digest)
