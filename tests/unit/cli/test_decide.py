"""Which of several waiting releases a command means: the named one, never a guess."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_cd.cli.decide import choose

OLD = {"run": "manual__1", "revision": "abcd1111" + "0" * 32, "digest": "a" * 64}
NEW = {"run": "manual__2", "revision": "abcd2222" + "0" * 32, "digest": "b" * 64}


def question(run: str, revision: str, digest: str, environment: str = "production") -> dict[str, Any]:
    about = {"manifest": "sha256:" + "f" * 64, "digest": f"sha256:{digest}", "revision": revision}
    return {
        "subject": f"Deploy hello {revision[:4]} to {environment}?",
        "body": "**hello**",
        "params": {"about": {"value": about, "description": None, "schema": {}}},
        "task_instance": {"dag_id": "hello_delivery", "dag_run_id": run, "task_id": f"{environment}.approve"},
    }


WAITING = [question(**NEW), question(**OLD)]


def chosen(name: str | None, waiting: list[dict[str, Any]] = WAITING, environment: str | None = None) -> str:
    run: str = choose(waiting, "hello", name, environment)["task_instance"]["dag_run_id"]
    return run


def test_the_only_one_needs_no_name() -> None:
    assert chosen(None, WAITING[:1]) == NEW["run"]


@pytest.mark.parametrize(
    "name",
    ["manual__1", "abcd1", "ABCD1111", "abcd1111" + "0" * 32, "aaaa", "sha256:aaaa", "sha256:" + "a" * 64],
)
def test_it_is_named_by_run_commit_or_digest(name: str) -> None:
    assert chosen(name) == OLD["run"]


@pytest.mark.parametrize("name", [None, "abcd"])
def test_of_several_none_is_guessed(name: str | None) -> None:
    with pytest.raises(SystemExit) as error:
        chosen(name)
    said = str(error.value)
    assert "2 releases wait; say which one" in said
    assert said.index("manual__2") < said.index("manual__1")  # newest first
    assert "--run-id manual__1   abcd1111 Deploy hello" in said


@pytest.mark.parametrize("name", ["manual__", "abc", "", "bcd1", "beef", "abcd1111" + "0" * 31 + "1"])
def test_what_is_not_a_name_of_one_that_waits_means_none(name: str) -> None:
    with pytest.raises(SystemExit, match=f"No release that waits is called '{name}'. Waiting:"):
        chosen(name)
    with pytest.raises(SystemExit, match="is called"):
        chosen(name, WAITING[:1])  # not even when there is no other


def test_an_environment_narrows_it_down() -> None:
    waiting = [question(**OLD), question(**NEW, environment="pre-production")]
    assert chosen(None, waiting, "production") == OLD["run"]
    with pytest.raises(SystemExit, match="No release of 'hello' waits for an approval for staging"):
        chosen(None, waiting, "staging")


def test_nothing_waits() -> None:
    with pytest.raises(SystemExit, match="No release of 'hello' waits"):
        chosen(None, [])
