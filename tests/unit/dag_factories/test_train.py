"""The DAG of a release train."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_cd.dag_factories import deployment_dag, release_train_dag
from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.service import Service
from airflow_cd.model.services_file.loader import load_services
from airflow_cd.model.train import Train

NAMES = [f"s{n}" for n in range(8)]


def service(name: str, pipeline: str = "deployment", approval: dict[str, Any] | None = None) -> Service:
    environments: list[dict[str, Any]] = [
        {"name": stage, "target": {"local": {"command": ["app"], "port": 1}}} for stage in ("staging", "live")
    ]
    if approval:
        environments[-1]["approval"] = approval
    source = {"repository": "/srv/git/hello.git"}
    definition = {"name": name, "pipeline": pipeline, "source": source, "environments": environments}
    return Service.model_validate({**definition, "train": "nightly"})


def train(**changes: Any) -> Train:
    return Train.model_validate({"name": "nightly", "schedule": "0 2 * * *", **changes})


def upstream(dag: DAG, task_id: str) -> set[str]:
    return set(dag.get_task(task_id).upstream_task_ids)


def test_a_train_has_its_members_tasks() -> None:
    dag = release_train_dag(train(timezone="Europe/Berlin"), [service("a"), service("b", "delivery")])
    assert set(dag.task_ids) == {
        *("board.a", "board.b", "approve", "arrive", "rollback.a", "rollback.b"),
        *("a.deploy", "a.health", "b.deploy", "b.health"),
    }
    assert set(release_train_dag(train(), [service("a")]).task_ids) >= {"depart", "arrive"}


def test_a_train_without_members_arrives() -> None:
    dag = release_train_dag(train(), [])
    assert (set(dag.task_ids), upstream(dag, "arrive")) == ({"depart", "arrive"}, {"depart"})


def test_a_members_own_pipeline_stops_before_production() -> None:
    dag = deployment_dag(service("a"))
    assert upstream(dag, "ready") == {"staging.health"}
    assert upstream(dag, "live.approve") == {"ready"}
    assert dag.params["train"] == "board"


def test_a_member_that_is_called_as_a_task_of_the_train_is_refused() -> None:
    with pytest.raises(DefinitionError, match="cannot take a service of this name.*'board'.*Rename"):
        release_train_dag(train(), [service("board")])


def test_without_a_word_the_strictest_of_the_members_policies_holds() -> None:
    policies = [{"approvers": ["alice", "bob"], "override": "deny"}, {"approvers": ["bob"]}, {}]
    members = [service(f"a{n}", "delivery", approval) for n, approval in enumerate(policies)]  # type: ignore[arg-type]
    approve = release_train_dag(train(), members).get_task("approve")
    assert (approve.policy.approvers, approve.policy.override) == (("bob",), "deny")  # type: ignore[union-attr]
    deploy = release_train_dag(train(), members).get_task("a2.deploy")
    assert deploy.service.production.approval == approve.policy  # type: ignore[union-attr]
    with pytest.raises(DefinitionError, match="nobody among alice, bob, carol may approve all.*Say who"):
        release_train_dag(train(), [*members, service("c", "delivery", {"approvers": ["carol"]})])


def test_each_member_may_be_asked_about_alone() -> None:
    members = [service("a", "delivery", {"approvers": ["alice"]}), service("b"), service("c", "delivery")]
    dag = release_train_dag(train(approve="service"), members)
    assert {"depart", "a.approve", "c.approve"} <= set(dag.task_ids)
    assert not {"approve", "b.approve"} & set(dag.task_ids)
    assert dag.get_task("a.approve").policy.approvers == ("alice",)  # type: ignore[union-attr]
    assert upstream(dag, "a.approve") == {"board.a", "depart"}
    assert "a.approve" in upstream(dag, "a.deploy")
    assert dag.get_task("a.deploy").approval_task_id == "a.approve"  # type: ignore[union-attr]
    assert dag.get_task("b.deploy").approval_task_id is None  # type: ignore[union-attr]
    everyone = release_train_dag(train(approve="service", approval={"approvers": ["bob"]}), members)
    assert {everyone.get_task(f"{name}.approve").policy.approvers for name in "abc"} == {("bob",)}  # type: ignore[union-attr]


def test_the_next_departure_is_told_by_the_clocks_of_its_zone() -> None:
    nightly = train(timezone="Europe/Berlin")
    after = datetime(2026, 7, 1, 12, tzinfo=timezone.utc)
    assert nightly.next_departure(after) == datetime(2026, 7, 2, 0, tzinfo=timezone.utc)


def test_a_train_tells_of_trains() -> None:
    entry = {"events": ["train_departed", "deployed"], "notifier": "a.B"}
    with pytest.raises(ValueError, match="is to tell of deployed, which a train never has"):
        train(notify=[entry])


def test_the_order_holds_by_way_of_a_member_that_is_not_there() -> None:
    order = [{"after": ["a"], "service": "gone"}, {"after": ["gone", "b"], "service": "c"}]
    dag = release_train_dag(train(order=order), [service(name) for name in "abc"])
    assert {"a.health", "b.health"} <= upstream(dag, "c.deploy")
    assert set(dag.get_task("c.deploy").stays.after) == {"a.health", "b.health"}  # type: ignore[union-attr]


def test_a_broken_member_leaves_the_others_order_and_a_mistake_in_it_the_train(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    text = """
        defaults: {pipeline: deployment, train: nightly, source: {repository: /srv/git/a.git}}
        services:
          - {name: a, environments: [{name: live, target: {local: {command: [app], port: 9001}}}]}
          - {name: b, environments: [{name: live, target: {local: {command: [app], port: 9002}}}]}
          - {name: x, buld: [], environments: [{name: live, target: {local: {command: [app], port: 9003}}}]}
        trains:
          - {name: nightly, schedule: "0 2 * * *", order: [{after: [b, NAME], service: a}]}
        """
    file.write_text(dedent(text.replace("NAME", "x")))
    found = load_services(file)
    assert [train.name for train in found.trains] == ["nightly"] and len(found.errors) == 1
    assert "b.health" in upstream(release_train_dag(found.trains[0], found.services), "a.deploy")
    file.write_text(dedent(text.replace("NAME", "y")))
    found = load_services(file)
    assert found.trains == () and "not on it" in str(found.errors[-1])


def test_a_services_file_makes_trains(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(
        dedent("""
        defaults: {pipeline: deployment, train: nightly, source: {repository: /srv/git/a.git}}
        services:
          - {name: a, environments: [{name: live, target: {local: {command: [app], port: 9001}}}]}
          - {name: b, environments: [{name: live, target: {local: {command: [app], port: 9002}}}]}
        trains:
          - {name: nightly, schedule: "0 2 * * *", order: [{after: [a], service: b}]}
        """)
    )
    load = 'from airflow_cd.dag_factories import load_dags\nload_dags("services.yaml", globals())\n'
    (tmp_path / "services.py").write_text(load)
    bag = DagBag(tmp_path, bundle_path=tmp_path)
    assert bag.import_errors == {}
    nightly = bag.dags["train_nightly"]
    assert "a.health" in upstream(nightly, "b.deploy")
    # What the UI does with every DAG, and what goes in circles where groups do.
    assert list(nightly.task_group.topological_sort())


@settings(max_examples=60)
@given(
    edges=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12),
    most=st.integers(1, 4),
    on_failure=st.sampled_from(["service", "dependents", "train"]),
)
def test_order_and_places_hold_whatever_they_are(
    edges: set[tuple[int, int]], most: int, on_failure: str
) -> None:
    rules = [{"after": [NAMES[a]], "service": NAMES[b]} for a, b in sorted(edges) if a < b]
    dag = release_train_dag(
        train(order=rules, max_parallel=most, on_failure=on_failure), [service(name) for name in NAMES]
    )
    before = {name: _ancestors(dag, f"{name}.deploy") for name in NAMES}
    for rule in rules:
        (after,) = rule["after"]
        assert f"{after}.health" in before[str(rule["service"])]
    # Of any set of members more than there are places, one waits for another one's health.
    for name in NAMES:
        beside = [one for one in NAMES if one != name and f"{one}.health" not in before[name]]
        free = [one for one in beside if f"{name}.health" not in before[one]]
        assert _widest(free, before) < most
    assert list(dag.task_group.topological_sort())
    if on_failure == "train":
        for rule in rules:
            assert f"recall.{rule['service']}" in _ancestors(dag, f"recall.{rule['after'][0]}")


def _ancestors(dag: DAG, task_id: str) -> set[str]:
    return {task.task_id for task in dag.get_task(task_id).get_flat_relatives(upstream=True)}


def _widest(names: list[str], before: dict[str, set[str]]) -> int:
    """Return how many of these can be under way at once, found greedily (a lower bound)."""
    together: list[str] = []
    for name in names:
        if all(
            f"{one}.health" not in before[name] and f"{name}.health" not in before[one] for one in together
        ):
            together.append(name)
    return len(together)
