"""What only a Kubernetes target does: manifests, edits by hand, roles, colours and drift."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from harness.waiting import wait_until
from tests.support.places import KubernetesPlace
from tests.support.rollouts_on_cluster import (
    as_deployer,
    begun,
    live,
    packaged,
    target_of,
    until,
    until_served,
)

from airflow_cd.exceptions import (
    AccessDeniedError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
    NotReadyError,
)
from airflow_cd.kubernetes.permissions import DEPLOYER_RULES
from airflow_cd.model.rollout import Phase, RolloutAnswer
from airflow_cd.targets.base import DeclarativeTarget
from airflow_cd.targets.kubernetes.target import KubernetesBackend
from airflow_cd.targets.record import Hold
from airflow_cd.targets.registry import open_target
from airflow_cd.targets.rollout_controller import RolloutController
from airflow_cd.testing.programs import BROKEN


@pytest.fixture
def target(place: KubernetesPlace) -> DeclarativeTarget:
    assert isinstance(place.target, DeclarativeTarget)
    return place.target


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_what_left_the_manifests_is_deleted_and_nothing_of_others(
    place: KubernetesPlace, cluster_client: Any
) -> None:
    from kubernetes import client as kubernetes

    core = kubernetes.CoreV1Api(cluster_client)
    place.reopen(manifests="k8s", app=None)
    place.deploy(packaged(place, "one", config_map("ours", a="1"), config_map("taken", a="1")))
    core.create_namespaced_config_map(place.namespace, config_map("theirs"))
    # A person took one of ours over, and says so.
    core.patch_namespaced_config_map(
        "taken", place.namespace, {"metadata": {"labels": {"airflow-cd/service": "another"}}}
    )
    place.deploy(packaged(place, "two"))
    names = {one.metadata.name for one in core.list_namespaced_config_map(place.namespace).items}
    assert {"theirs", "taken"} <= names and "ours" not in names
    assert place.served() == "two"


def test_going_back_brings_back_the_settings_of_then(place: KubernetesPlace, cluster_client: Any) -> None:
    place.reopen(manifests="k8s", app=None)
    releases = [packaged(place, text, config_map("settings", is_=text)) for text in ("one", "two", "three")]
    for release in releases:
        place.deploy(release)
    place.lose_sources()
    place.target.rollback(bad=releases[2].digest, actor="test", to=releases[0].digest)
    assert place.served() == "one"
    assert live(cluster_client, place, "config_map", "settings").data == {"is_": "one"}


def test_a_release_without_manifests_for_the_environment_says_what_to_do(place: KubernetesPlace) -> None:
    place.reopen(manifests="k8s", app=None)
    with pytest.raises(ManifestError, match="packaged without manifests for production; clear"):
        place.deploy(place.release("one"))


def test_an_edit_by_hand_stops_the_next_deployment_and_is_named(
    place: KubernetesPlace, cluster_client: Any
) -> None:
    place.deploy(place.release("one"))
    by_hand(cluster_client, place, replicas=2)
    two, before = place.release("two"), place.target.record()
    with pytest.raises(FieldConflictError, match=r"(?s)spec\.replicas.*kubectl-edit.*on_conflict: take"):
        begun(place, two)
    assert (place.target.record(), place.served()) == (before, "one")
    place.reopen(on_conflict="take")
    place.deploy(two)
    assert live(cluster_client, place, "deployment", place.service).spec.replicas == 1


def by_hand(client: Any, place: KubernetesPlace, replicas: int) -> None:
    from kubernetes import client as kubernetes

    kubernetes.AppsV1Api(client).patch_namespaced_deployment(
        place.service, place.namespace, {"spec": {"replicas": replicas}}, field_manager="kubectl-edit"
    )


def test_drift_is_seen_field_by_field_and_healed(
    place: KubernetesPlace, target: DeclarativeTarget, cluster_client: Any
) -> None:
    place.deploy(place.release("one"))
    assert target.drift() == []
    by_hand(cluster_client, place, replicas=2)
    (found,) = target.drift()
    assert found.name == f"Deployment/{place.service}"
    assert "-  replicas: 2" in found.text and "+  replicas: 1" in found.text
    target.heal()
    assert target.drift() == []
    assert live(cluster_client, place, "deployment", place.service).spec.replicas == 1


def test_a_preview_changes_nothing(place: KubernetesPlace, target: DeclarativeTarget) -> None:
    one = place.release("one")
    found = target.preview(one, place.store)
    assert {(one.name, one.text) for one in found} == {
        (f"Deployment/{place.service}", "new"),
        (f"Service/{place.service}", "new"),
    }
    assert (target.record().generation, target.url()) == (0, None)


def test_what_was_made_by_hand_is_taken_over_only_when_that_is_wanted(
    place: KubernetesPlace, cluster_client: Any
) -> None:
    from kubernetes import client as kubernetes

    selector = {"app.kubernetes.io/name": "by-hand"}
    spec = {"selector": selector, "ports": [{"port": 80}]}
    by_hand = {"metadata": {"name": place.service}, "spec": spec}
    kubernetes.CoreV1Api(cluster_client).create_namespaced_service(place.namespace, by_hand)
    with pytest.raises(ManifestError, match="is there already.*on_conflict: take"):
        place.deploy(place.release("one"))
    assert live(cluster_client, place, "service", place.service).spec.selector == selector
    place.reopen(on_conflict="take")
    for text in ("broken", "broken again"):
        with pytest.raises(NotReadyError, match="no database"):
            place.deploy(place.release(text.replace(" ", "-"), BROKEN))
        assert live(cluster_client, place, "service", place.service) is not None, "it was there before"
    place.deploy(place.release("two"))
    until_served(place, "two")


def test_objects_of_another_environment_are_not_taken(
    place: KubernetesPlace, namespace: str, tmp_path: Path
) -> None:
    place.deploy(place.release("one"))
    staging = place.environment.model_copy(update={"name": "staging"})
    other = open_target(place.service, staging, place.access())
    with pytest.raises(ManifestError, match="belongs to .* in production; use another namespace"):
        other.deploy(place.release("two"), place.store, expected=0, actor="test")
    assert place.served() == "one"


def test_the_documented_rights_are_enough(
    place: KubernetesPlace, cluster_client: Any, tmp_path: Path
) -> None:
    place.strategy = {"canary": {"steps": [{"weight": 50}]}}
    place.reopen()
    as_deployer(place, cluster_client, list(DEPLOYER_RULES), tmp_path)
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    with pytest.raises(NotReadyError, match="no database"):
        place.deploy(place.release("broken", BROKEN))
    assert target_of(place).drift() == []
    place.target.rollback(bad=two.digest, actor="test")
    assert place.served() == "one"


def test_who_may_not_gets_told_what_is_missing(
    place: KubernetesPlace, cluster_client: Any, tmp_path: Path
) -> None:
    rules = [rule for rule in DEPLOYER_RULES if rule["apiGroups"] != ["apps"]]
    rules.append({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]})
    as_deployer(place, cluster_client, rules, tmp_path)
    with pytest.raises(AccessDeniedError, match=r"(?s)deployer.*patch.*deployments.*apps"):
        place.deploy(place.release("one"))
    assert place.target.record().rollout is None
    place.reopen()


def test_a_first_release_that_fails_leaves_nothing(place: KubernetesPlace, cluster_client: Any) -> None:
    with pytest.raises(NotReadyError, match="no database"):
        place.deploy(place.release("broken", BROKEN))
    assert live(cluster_client, place, "deployment", place.service) is None
    assert live(cluster_client, place, "service", place.service) is None
    assert place.target.record().generation == 0


def test_a_canary_has_its_share_of_the_instances_and_an_abort_gives_all_back(
    place: KubernetesPlace, cluster_client: Any
) -> None:
    place.strategy = {"canary": {"steps": [{"weight": 25}, {"pause": "approval"}]}}
    place.reopen(app={"ready": "/", "replicas": 4, "stop_after": "1s", "grace": "1s"})
    place.deploy(place.release("one"))
    begun(place, place.release("two"))
    record = until(place, Phase.AWAITING_DECISION)
    assert record.rollout is not None
    token = record.rollout.token

    def has_its_share() -> bool:
        seen = target_of(place).advance(token).rollout
        return seen is not None and seen.progress.achieved == 25

    # What was scaled down ends a moment later.
    wait_until(has_its_share, "the canary has a quarter", timeout=30)
    stable, canary = place.service, f"{place.service}-canary"
    assert [live(cluster_client, place, "deployment", name).spec.replicas for name in (stable, canary)] == [
        3,
        1,
    ]
    target_of(place).abort(actor="ada", reason="prices")
    # At once, whatever else takes its time.
    assert live(cluster_client, place, "deployment", canary).spec.replicas == 0
    until(place, Phase.ABORTED)
    assert live(cluster_client, place, "deployment", canary) is None
    assert live(cluster_client, place, "deployment", stable).spec.replicas == 4
    assert place.served() == "one"


def test_a_canary_that_gets_ready_between_two_looks_gets_its_share_first(
    place: KubernetesPlace, cluster_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.strategy = {"canary": {"steps": [{"weight": 50}, {"pause": "approval"}]}}
    place.reopen(app={"ready": "/", "replicas": 2, "stop_after": "1s", "grace": "1s"})
    place.deploy(place.release("one"))
    begun(place, place.release("two"))
    stable, canary = place.service, f"{place.service}-canary"
    wait_until(
        lambda: live(cluster_client, place, "deployment", canary).status.ready_replicas,
        "it is ready",
        timeout=60,
    )
    rollout = place.target.record().rollout
    assert rollout is not None
    with monkeypatch.context() as patched:
        # As it was before: nothing of the next stage could be applied.
        patched.setattr(KubernetesBackend, "proceed", lambda self, stored: stored)
        after = target_of(place).advance(rollout.token).rollout
    assert after is not None and after.progress.phase is Phase.SHIFTING_TRAFFIC
    until(place, Phase.AWAITING_DECISION)
    assert live(cluster_client, place, "deployment", stable).spec.replicas == 1


def test_a_candidate_is_not_aborted_since_another_process_wrote_the_record(place: KubernetesPlace) -> None:
    """As when a person answers in a task while the triggerer begins to look."""
    place.strategy = {"canary": {"steps": [{"weight": 50}, {"pause": "approval"}]}}
    place.reopen(app={"ready": "/", "replicas": 2, "stop_after": "1s", "grace": "1s"})
    place.deploy(place.release("one"))
    begun(place, place.release("two"))
    record = until(place, Phase.AWAITING_DECISION)
    assert record.rollout is not None
    backend = KubernetesBackend(place.service, place.environment, place.access())
    whole = backend.leased

    def leased(actor: str, what: str) -> AbstractContextManager[None]:
        backend.leased = whole  # type: ignore[method-assign]
        stored = backend.load()
        rollout = stored.record.rollout
        assert rollout is not None
        # It was not ready a while ago, too, as far as the process before knew.
        long_ago = {"unready_since": datetime(2026, 1, 2, tzinfo=timezone.utc)}
        progress = rollout.progress.model_copy(update=long_ago)
        changed = {
            "hold": Hold(by="ada", since=datetime.now(timezone.utc)),
            "rollout": rollout.model_copy(update={"progress": progress}),
        }
        backend.save(stored, stored.record.model_copy(update=changed))
        return whole(actor, what)

    backend.leased = leased  # type: ignore[method-assign, assignment]
    after = RolloutController(backend).advance(record.rollout.token)
    assert after.rollout is not None
    assert after.rollout.progress.phase is Phase.AWAITING_DECISION
    assert after.hold is not None, "it was written meanwhile"


def test_colours_switch_at_once_and_the_old_one_waits_to_be_gone_back_to(
    place: KubernetesPlace, cluster_client: Any
) -> None:
    place.strategy = {"blue_green": {"promotion": "approval", "scale_down_delay": "1h"}}
    place.reopen()
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    begun(place, two)
    until(place, Phase.AWAITING_DECISION)
    preview = live(cluster_client, place, "service", f"{place.service}-preview")
    assert preview.spec.selector["airflow-cd/track"] == "green"
    assert place.served() == "one"
    until(place, Phase.PROMOTED, RolloutAnswer(promote=True, by="ada"))
    until_served(place, "two")
    assert live(cluster_client, place, "deployment", f"{place.service}-blue").status.ready_replicas == 1
    place.target.rollback(bad=two.digest, actor="test")
    until_served(place, "one")
    assert live(cluster_client, place, "service", f"{place.service}-preview") is None


def test_a_killed_deployment_is_gone_on_with(place: KubernetesPlace, cluster_client: Any) -> None:
    from kubernetes.client import CoreV1Api

    core = CoreV1Api(cluster_client)
    place.deploy(place.release("one"))
    two = place.release("two")
    # It must not be over before it is killed.
    no_more = {"metadata": {"name": "no-more"}, "spec": {"hard": {"pods": "0"}}}
    core.create_namespaced_resource_quota(place.namespace, no_more)
    process = place.deploying_process(two, 1)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()

    def begun() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return place.target.record().rollout is not None

    wait_until(begun, "it has begun", timeout=60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    core.delete_namespaced_resource_quota("no-more", place.namespace)

    def again() -> int | None:
        try:
            return place.deploy(two)
        except DeployConflictError:  # the lease of who was killed holds for a moment
            return None

    assert wait_until(again, "it is gone on with", timeout=60) == 2
    assert (place.served(), len(place.instances())) == ("two", 1)
