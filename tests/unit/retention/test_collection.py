"""All stores of a services file and this machine, and the task that collects them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.garbage import Garbage

from airflow_cd.exceptions import CdError
from airflow_cd.model.service import Service
from airflow_cd.releases import adapters
from airflow_cd.retention import artifacts
from airflow_cd.retention.artifacts import Options
from airflow_cd.retention.collection import collect
from airflow_cd.retention.operators import CollectGarbageOperator


@pytest.fixture(autouse=True)
def grown_old(monkeypatch: pytest.MonkeyPatch, garbage: Garbage) -> None:
    """Let the clock of collections be ahead, as it is in the other tests."""
    from airflow_cd.retention import collection

    monkeypatch.setattr(collection, "datetime", SimpleNamespace(now=lambda zone: garbage.now))


def nothing_runs(dag_id: str, run_ids: Any) -> set[str]:
    return set()


def found(*services: Service, **keys: Any) -> dict[tuple[str, str], Any]:
    return {(row.service, row.what): row for row in collect(services, nothing_runs, Options(), **keys)}


def test_every_store_is_collected_and_one_that_cannot_be_stops_no_other(
    garbage: Garbage, tmp_path: Path
) -> None:
    old, _ = garbage.release("old"), garbage.release("newest", days=49)
    garbage.store.put_ref("uses/hello/1", {})
    elsewhere = garbage.service("other", artifacts=(tmp_path / "elsewhere").as_uri())
    rows = found(garbage.service(), elsewhere)
    assert not rows["-", "artifact store"].is_complete and rows["other", "releases"].is_complete
    assert not rows["-", "commits of git caches"].is_complete
    assert garbage.has(old[0].digest)
    (garbage.store.root / "refs/uses/hello/1.json").unlink()
    rows = found(garbage.service(), elsewhere)
    assert all(row.is_complete for row in rows.values()) and not garbage.has(old[0].digest)


def test_a_store_that_cannot_be_listed_is_left_to_its_own_rules(
    garbage: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_cd.retention import collection

    monkeypatch.setattr(collection, "open_store", lambda url: SimpleNamespace(url=url))
    row = found(garbage.service())["hello", "releases"]
    assert row.why == f"left to the rules of {garbage.store.url}"


@pytest.mark.parametrize("keys", [{"chosen": ["hello"]}, {"whole_file": False}])
def test_the_machine_is_left_alone_unless_all_is_known(garbage: Garbage, keys: Any) -> None:
    assert ("-", "scratch folders") in found(garbage.service())
    assert ("-", "scratch folders") not in found(garbage.service(), **keys)


class Runs:
    """The part of a task instance that counts runs."""

    def __init__(self, *unfinished: str) -> None:
        self.unfinished, self.asked = set(unfinished), 0
        self.pushed: list[Any] = []

    def get_dr_count(self, dag_id: str, run_ids: list[str], states: list[str]) -> int:
        assert dag_id == "hello_delivery" and states == ["queued", "running"] and len(run_ids) <= 50
        self.asked += 1
        return len(self.unfinished & set(run_ids))

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed.append(value)


def test_the_task_asks_which_runs_have_ended(garbage: Garbage) -> None:
    made = [garbage.release(f"r{number}", days=50 - number / 100)[0] for number in range(120)]
    runs = Runs("run_r3", "run_r77")
    operator = CollectGarbageOperator(task_id="collect", services=[garbage.service()])
    rows = operator.execute({"ti": runs})  # type: ignore[typeddict-item]
    there = [one.version for one in made if garbage.store.look("blob", one.digest)]
    assert there == ["r3", "r77", "r119"] and runs.asked < 40
    (releases,) = (row for row in rows if row["what"] == "releases")
    assert releases["removed"]["count"] == 117 and runs.pushed == [rows]


def test_the_task_fails_when_something_was_left_out(
    garbage: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise CdError("the cluster is down")

    monkeypatch.setattr(artifacts, "needs_of", refuse)
    operator = CollectGarbageOperator(task_id="collect", services=[garbage.service()])
    with pytest.raises(CdError, match="hello: nothing is removed.*the cluster is down"):
        operator.execute({"ti": Runs()})  # type: ignore[typeddict-item]


def test_services_without_a_store_of_their_own_share_the_configured_one(garbage: Garbage) -> None:
    assert adapters.store_url(garbage.service(artifacts=None)).endswith("/artifacts")
    assert found(garbage.service(artifacts=None))["hello", "releases"].is_complete
