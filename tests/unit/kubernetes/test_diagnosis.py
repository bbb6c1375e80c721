"""
What is certain, what may pass, and what is reported of it: by what a real cluster (1.20, Docker) said.

``recorded/workloads.json`` has Deployments that cannot become ready, their pods and the events about them,
as they were three minutes after they were applied.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.kubernetes.diagnosis import Problem, diagnose

RECORDED = json.loads((Path(__file__).parent / "recorded" / "workloads.json").read_text())
APPLIED = datetime(2026, 11, 25, 13, 11, 55, tzinfo=timezone.utc)


class Case:
    """One recorded workload, to be changed at will."""

    def __init__(self, name: str) -> None:
        found = copy.deepcopy(RECORDED[name])
        self.workload, self.pods, self.events = found["workload"], found["pods"], found["events"]

    @property
    def status(self) -> dict[str, Any]:
        """The status of the first pod."""
        return self.pods[0]["status"]  # type: ignore[no-any-return]

    @property
    def container(self) -> dict[str, Any]:
        """The status of its container."""
        return self.status["containerStatuses"][0]  # type: ignore[no-any-return]

    def event(self, reason: str, message: str, seconds: float) -> None:
        """Add an event about the first pod, so long after it was applied."""
        about = {"kind": "Pod", "uid": self.pods[0]["metadata"]["uid"], "fieldPath": "spec.containers{app}"}
        time = (APPLIED + timedelta(seconds=seconds)).isoformat()
        self.events.append(
            {"involvedObject": about, "reason": reason, "message": message, "eventTime": time, "count": 1}
        )

    def at(self, seconds: float) -> list[Problem]:
        """Return the problems, so long after it was applied."""
        return diagnose(self.workload, self.pods, self.events, APPLIED + timedelta(seconds=seconds))

    def first(self, seconds: float = 180) -> Problem:
        """Return the first of them."""
        return self.at(seconds)[0]


@pytest.mark.parametrize(
    ("name", "category", "certain", "words"),
    [
        ("noimage", "image", True, "127.0.0.1:5000/nosuch:1 cannot be pulled"),
        ("invalid", "image", True, "invalid reference format"),
        ("noregistry", "image", False, "connection refused"),
        ("crash", "crash", True, "container app ended with exit code 3, 5 times by now"),
        ("initcrash", "crash", True, "container migrate ended with exit code 4"),
        ("oom", "crash", True, "used more memory than it may"),
        ("liveness", "crash", True, "ended by the cluster: Liveness probe failed"),
        ("noexec", "configuration", True, 'exec: "nosuchprogram": executable file not found'),
        ("nomap", "configuration", True, 'configmap "nosuch" not found'),
        ("nomount", "configuration", True, 'configmap "nosuch" not found'),
        ("nonode", "unschedulable", True, "didn't match Pod's node affinity"),
        ("noclaim", "volume", True, 'persistentvolumeclaim "nosuch" not found'),
        ("quota", "quota", True, "exceeded quota: small"),
        ("unready", "deadline", True, "Readiness probe failed: not yet"),
    ],
)
def test_each_cause_is_told(name: str, category: str, certain: bool, words: str) -> None:
    problem = Case(name).first()
    assert (problem.category, problem.certain) == (category, certain)
    assert words in problem.text and problem.remedy in problem.text


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_nothing_is_wrong_with_pods_that_are_ready(name: str) -> None:
    case = Case(name)
    for pod in case.pods:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    case.workload["status"] = {"observedGeneration": 1}
    assert case.at(180) == []


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_pod_that_is_on_its_way_out_has_no_problems(name: str) -> None:
    case = Case(name)
    for pod in case.pods:
        pod["metadata"]["deletionTimestamp"] = "2026-11-25T13:14:00Z"
    case.workload["status"] = {"observedGeneration": 1}
    assert case.at(180) == []


@pytest.mark.parametrize(
    ("name", "certain_after"), [("nomap", 15), ("nomount", 10), ("quota", 22), ("nonode", 60)]
)
def test_what_others_may_still_bring_is_waited_for(name: str, certain_after: float) -> None:
    assert not Case(name).first(certain_after - 1).certain
    assert Case(name).first(certain_after + 1).certain


def test_an_image_that_was_not_found_once_may_be_there_the_second_time() -> None:
    case = Case("noimage")
    case.events[0]["count"] = 1
    assert not case.first().certain
    # Without events nobody knows how often it was tried.
    case.events.clear()
    assert not case.first().certain


@pytest.mark.parametrize(
    ("said", "certain"),
    [
        # Docker
        ("manifest for r/web:1 not found: manifest unknown: manifest unknown", True),
        ("pull access denied for r/web, repository does not exist or may require 'docker login'", True),
        ("toomanyrequests: You have reached your pull rate limit", False),
        ("Get https://r/v2/: net/http: request canceled (Client.Timeout exceeded)", False),
        # containerd
        ('failed to resolve reference "r/web:1": r/web:1: not found', True),
        ("failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized", True),
        ("insufficient_scope: authorization failed", True),
        ("unexpected status code: 403 Forbidden", True),
        ("no match for platform in manifest: not found", True),
        ("tls: failed to verify certificate: x509: certificate signed by unknown authority", True),
        ("dial tcp: lookup r on 10.96.0.10:53: no such host", False),
        ("unexpected status code: 503 Service Unavailable", False),
    ],
)
def test_only_answers_that_stay_the_same_are_certain(said: str, certain: bool) -> None:
    case = Case("noimage")
    case.container["image"] = "r/web:1"
    case.container["state"] = {"waiting": {"reason": "ErrImagePull", "message": said}}
    assert case.first().certain is certain


def test_the_name_of_an_image_is_no_reason() -> None:
    case = Case("noregistry")
    case.container["image"] = "r/forbidden:1"
    case.container["state"]["waiting"] = {"reason": "ErrImagePull", "message": "r/forbidden:1: i/o timeout"}
    assert not case.first().certain


def test_one_crash_may_be_an_accident_and_two_are_not() -> None:
    case = Case("crash")
    ended = case.container["lastState"]
    case.container.update(restartCount=0, state=ended, lastState={})
    once = case.first()
    assert not once.certain and "ended: exit code 3" in once.summary
    case.container.update(restartCount=1, state={"running": {}}, lastState=ended)
    assert not case.first().certain
    case.container.update(restartCount=2)
    assert case.first().certain


def test_crashes_of_long_ago_do_not_count() -> None:
    case = Case("crash")
    case.container.update(state={"running": {}})
    assert case.first().certain
    assert case.at(3600) == []


def test_an_init_container_that_did_its_part_is_no_crash() -> None:
    case = Case("initcrash")
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": "2026-11-25T13:14:00Z"}}
    case.status["initContainerStatuses"][0].update(state=done, ready=True)
    assert case.at(180) == []


def test_a_program_that_ends_well_does_not_belong_there() -> None:
    case = Case("crash")
    case.container["lastState"]["terminated"]["exitCode"] = 0
    assert "has to go on running" in case.first().remedy


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_a_cluster_that_grows_is_waited_for(reason: str) -> None:
    case = Case("nonode")
    case.event(reason, "pod triggered scale-up: [{group 1->2 (max: 3)}]", 70)
    assert not case.first(180).certain
    # ... but not for ever, if no node came.
    assert case.first(70 + 901).certain


def test_a_cluster_that_makes_room_is_waited_for() -> None:
    case = Case("nonode")
    case.status["nominatedNodeName"] = "node1"
    assert not case.first().certain


def test_a_volume_that_is_being_made_is_waited_for() -> None:
    case = Case("noclaim")
    condition = case.status["conditions"][0]
    condition["message"] = "0/1 nodes are available: 1 pod has unbound immediate PersistentVolumeClaims."
    problem = case.first()
    assert (problem.category, problem.certain) == ("volume", False)


def test_a_quota_lets_those_that_are_there_make_room() -> None:
    case = Case("quota")
    case.pods, case.events = Case("unready").pods, Case("unready").events
    assert {(one.category, one.certain) for one in case.at(180)} == {("quota", False), ("readiness", False)}


def test_a_refusal_of_the_revision_before_says_nothing_yet_of_this_one() -> None:
    case = Case("quota")
    conditions = {one["type"]: one for one in case.workload["status"]["conditions"]}
    conditions["Progressing"]["lastUpdateTime"] = (APPLIED + timedelta(seconds=170)).isoformat()
    assert not case.first(180).certain
    assert case.first(191).certain


@pytest.mark.parametrize(
    ("message", "category", "certain"),
    [
        ('admission webhook "policy.example" denied the request: no latest tags', "admission", True),
        ('pods "web" is forbidden: violates PodSecurity "restricted:latest"', "admission", True),
        ('failed calling webhook "policy.example": connection refused', "admission", False),
        (
            'pods "web" is forbidden: error looking up service account shop/web: not found',
            "configuration",
            True,
        ),
        ('pods "web" is forbidden: maximum memory usage per Container is 1Gi', "quota", True),
        ('pods "web" is forbidden: failed quota: small: must specify limits.memory', "quota", True),
    ],
)
def test_whoever_refuses_pods_is_told(message: str, category: str, certain: bool) -> None:
    case = Case("quota")
    for condition in case.workload["status"]["conditions"]:
        condition["message"] = message
    problem = case.first()
    assert (problem.category, problem.certain) == (category, certain)
    assert message in problem.detail


def test_what_the_cluster_has_not_taken_up_says_nothing_yet() -> None:
    for name in ("quota", "unready"):
        case = Case(name)
        case.workload["metadata"]["generation"] = 2
        assert not any(one.certain for one in case.at(180))


def test_readiness_is_left_to_the_deadline() -> None:
    case = Case("unready")
    case.workload["status"]["conditions"] = []
    problem = case.first()
    assert (problem.category, problem.certain) == ("readiness", False)


def test_what_is_certain_comes_first_and_the_deadline_after_its_cause() -> None:
    case = Case("unready")
    case.pods += Case("noimage").pods + Case("noregistry").pods
    case.events += Case("noimage").events + Case("noregistry").events
    told = [(one.category, one.certain) for one in case.at(180)]
    assert told == [("image", True), ("deadline", True), ("image", False), ("readiness", False)]


def test_pods_with_the_same_problem_are_told_of_once() -> None:
    case = Case("crash")
    for number in (2, 3):
        other = copy.deepcopy(case.pods[0])
        other["metadata"].update(name=f"crash-{number}", uid=f"uid-{number}")
        case.pods.append(other)
    problems = case.at(180)
    assert len(problems) == 1
    assert "Pod crash-d9b7d78b-kxrn9" in problems[0].summary
    assert problems[0].summary.endswith("so it is with 2 more pods")


def test_what_others_said_is_made_fit_for_a_line() -> None:
    case = Case("nomap")
    case.container["state"]["waiting"]["message"] = "bad\x1b[31m\nthing " + "x" * 1000
    detail = case.first().detail
    assert "\x1b" not in detail and "\n" not in detail and len(detail) <= 300


def test_the_last_words_of_a_container_are_told_line_by_line() -> None:
    case = Case("crash")
    case.container["lastState"]["terminated"]["message"] = "one\ntw\x1bo\n\n" + "\n".join("x" * 30)
    text = case.first().text
    assert text.count("\n") == 20 and "\x1b" not in text


def test_evicted_pods_are_told_and_replaced_by_others() -> None:
    case = Case("crash")
    case.pods[0]["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on memory.",
    }
    problem = case.first()
    assert (problem.category, problem.certain) == ("node", False) and "low on memory" in problem.text
