"""A service of a few keys: its environment, how it stops, and that a cluster takes it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness.waiting import wait_until
from pydantic import ValidationError
from tests.support.engine import remove_later
from tests.support.images import Registry, built
from tests.support.releases import release_of

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import Reference
from airflow_cd.model.kubernetes import AppSettings
from airflow_cd.model.release import Release
from airflow_cd.targets.kubernetes.app import labelled, name_of_app, objects_of_app, secret_of_app
from airflow_cd.targets.kubernetes.state_store import labels_of
from airflow_cd.testing.programs import APP

RELEASE = release_of(f"sha256:{'a' * 64}").model_copy(update={"image": "registry.example:5000/shop/hello"})
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# The longest and oddest that a services file may have.
NAMES = (
    "hello",
    "a_b",
    "a-b",
    "a-",
    "a_",
    f"aaaaaa_{'b' * 48}",
    "a" * 63,
    f"{'a' * 62}b",
    f"a{'_' * 62}",
    f"{'a' * 54}-b",
)
EVERYTHING: dict[str, Any] = {
    "port": 9000,
    "replicas": 2,
    "command": ["python", "-u", "/app.py", "$(PORT)"],
    "env": {"GREETING": "$(id); $$ $5", "PORT": "1", "CD_VERSION": "mine"},
    "secrets": {"PASSWORD": "db"},
    "ready": "/ready",
    "alive": "/alive",
    "user": "1000:1000",
    "image_pull_secrets": ["regcred"],
    "annotations": {"prometheus.io/scrape": "true"},
    "resources": {"cpu": "10m", "memory": "16Mi", "cpu_limit": "1", "memory_limit": "64Mi"},
    "service_account": "web",
    "stop_after": "1500ms",
    "grace": "500ms",
}


def objects(app: Any = None, release: Release = RELEASE, service: str = "hello", **kwargs: Any) -> list[Any]:
    settings = AppSettings.model_validate(app or {})
    return objects_of_app(settings, service=service, environment="production", release=release, **kwargs)


def pods(app: Any = None, **kwargs: Any) -> Any:
    return objects(app, **kwargs)[0]["spec"]["template"]["spec"]


def container(app: Any = None, **kwargs: Any) -> Any:
    (one,) = pods(app, **kwargs)["containers"]
    return one


def env(app: Any = None) -> dict[str, Any]:
    found = container(app)["env"]
    assert len({one["name"] for one in found}) == len(found)
    return {one["name"]: one.get("value") for one in found}


def test_an_instance_is_told_who_it_is_whatever_the_settings_say() -> None:
    own = {"PORT": "1", "CD_VERSION": "mine", "CD_RELEASE": "mine", "GREETING": "hi"}
    assert env({"port": 9000, "env": own}) == {
        "PORT": "9000",
        "HOST": "0.0.0.0",
        "GREETING": "hi",
        "CD_SERVICE": "hello",
        "CD_ENVIRONMENT": "production",
        "CD_VERSION": "1.0.0",
        "CD_REVISION": RELEASE.revision.sha,
        "CD_RELEASE": RELEASE.digest,
    }
    assert container()["image"] == RELEASE.pull_spec


def test_a_release_that_is_no_image_is_refused() -> None:
    with pytest.raises(ManifestError, match="1.0.0 is no image"):
        objects(release=RELEASE.model_copy(update={"image": None}))


@pytest.mark.parametrize(
    ("text", "written"),
    [("$(PORT)", "$$(PORT)"), ("a$$b", "a$$$$b"), ("$5 a month", "$5 a month"), ("plain", "plain")],
)
def test_nothing_in_arguments_and_values_is_replaced(text: str, written: str) -> None:
    one = container({"command": [text], "env": {"A": text}})
    assert one["args"] == [written]
    assert {"name": "A", "value": written} in one["env"]


def test_an_instance_serves_on_while_it_is_taken_out() -> None:
    settings = {"stop_after": "1500ms", "grace": "500ms"}
    assert container(settings)["lifecycle"] == {"preStop": {"exec": {"command": ["sleep", "2"]}}}
    by_node = container(settings, can_sleep=True)
    assert by_node["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    assert pods(settings)["terminationGracePeriodSeconds"] == 3
    at_once = {"stop_after": 0, "grace": 0}
    assert "lifecycle" not in container(at_once)
    assert pods(at_once)["terminationGracePeriodSeconds"] == 1, "0 would be to kill it"


def test_an_instance_may_do_no_more_than_it_needs() -> None:
    usual, other = pods(), pods({"user": "1000", "service_account": "web"})
    assert usual["automountServiceAccountToken"] is False and "runAsNonRoot" not in usual["securityContext"]
    assert usual["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {"allowPrivilegeEscalation": False}
    assert other["automountServiceAccountToken"] and other["serviceAccountName"] == "web"
    assert other["securityContext"]["runAsNonRoot"] and other["securityContext"]["runAsUser"] == 1000
    assert other["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_releases_that_listen_on_different_ports_run_side_by_side() -> None:
    (one, service), (other, same) = objects({"port": 1}), objects({"port": 2})
    assert service == same and one != other


@pytest.mark.parametrize("name", NAMES)
def test_names_and_labels_are_valid_with_room_for_what_strategies_add(name: str) -> None:
    made = objects_of_app(AppSettings(), service=name, environment=name, release=RELEASE)
    made = labelled(made, service=name, environment=name)
    secret = secret_of_app(
        AppSettings(secrets={"A": "a"}), service=name, environment=name, secret=lambda conn_id: conn_id
    )
    assert secret is not None
    for one in made:
        assert DNS_LABEL.fullmatch(one["metadata"]["name"]) and len(one["metadata"]["name"]) <= 55
        for value in one["metadata"]["labels"].values():
            assert LABEL_VALUE.fullmatch(value), value
    assert re.fullmatch(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", secret_name(secret)
    )
    assert len(secret_name(secret)) <= 253


def test_no_two_services_have_objects_of_one_name() -> None:
    assert len({name_of_app(name) for name in NAMES}) == len(NAMES)
    app = AppSettings(secrets={"A": "a"})
    pairs = [("a-b", "c"), ("a", "b-c"), ("a_b", "c"), ("a", "b_c")]
    made = [
        secret_of_app(app, service=one, environment=two, secret=lambda conn_id: conn_id) for one, two in pairs
    ]
    assert len({secret_name(one) for one in made if one}) == len(pairs)


def secret_name(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["name"])


def test_each_release_keeps_the_secrets_it_was_told_of() -> None:
    def secret(**secrets: str) -> Any:
        app = AppSettings(secrets=secrets)
        made = secret_of_app(app, service="hello", environment="production", secret=lambda one: f"of {one}")
        (reference,) = [
            one["valueFrom"]["secretKeyRef"] for one in container(app)["env"] if "valueFrom" in one
        ]
        assert made is not None and reference == {"name": secret_name(made), "key": next(iter(secrets))}
        return made

    first, again, renamed, other = secret(A="db"), secret(A="db"), secret(B="db"), secret(A="other")
    assert first == again and b64decode(first["data"]["A"]) == b"of db"
    assert len({secret_name(one) for one in (first, renamed, other)}) == 3
    nothing = secret_of_app(AppSettings(), service="hello", environment="production", secret=str)
    assert nothing is None


def test_labels_say_whose_objects_and_pods_are_and_leave_the_rest_alone() -> None:
    job = {"spec": {"template": {"metadata": None, "spec": {}}}}  # type: ignore[var-annotated]
    cron = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "a"},
        "spec": {"jobTemplate": job},
    }
    sealed = {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": {"name": "b", "labels": None},
        "spec": {"template": {"metadata": {}}},
    }
    given = [*objects(), cron, sealed]
    before = str(given)
    made = labelled(given, service="hello", environment="production")
    ours = {"airflow-cd/service": "hello", "airflow-cd/environment": "production"}
    assert str(given) == before
    for one in made:
        assert one["metadata"]["labels"].items() >= ours.items()
    assert made[0]["spec"]["template"]["metadata"]["labels"].items() >= ours.items()
    assert made[0]["spec"]["selector"] == given[0]["spec"]["selector"], "cannot change, once it is there"
    assert made[2]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"] == ours
    assert made[3]["spec"] == sealed["spec"]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ({"env": {"A": "1"}, "secrets": {"A": "a"}}, "has A under `env` and under `secrets`"),
        ({"secrets": {"CD_RELEASE": "a"}}, "CD_RELEASE under `secrets`, a variable that is set without you"),
        ({"secrets": {"PORT": "a"}}, "PORT under `secrets`"),
        ({"annotations": {"airflow-cd/digest": "a"}}, "has airflow-cd/digest, which is set without you"),
        ({"annotations": {"a b": "a"}}, "annotations"),
        ({"user": "root"}, "user"),
        ({"user": "0"}, "user"),
        ({"alive": "healthz"}, "alive"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(app: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        AppSettings.model_validate(app)


@pytest.mark.parametrize("app", [{}, EVERYTHING], ids=["nothing", "everything"])
def test_a_cluster_takes_it_and_finds_nothing_to_change(
    cluster: NamespaceClient, app: dict[str, Any]
) -> None:
    app = {**app, "service_account": None, "image_pull_secrets": []} if app else {"replicas": 0}
    made = labelled(objects({**app, "replicas": 0}), service="hello", environment="production")
    cluster.validate(made)
    cluster.apply(made)
    assert cluster.diff(made) == []


def test_a_cluster_says_its_version(cluster: NamespaceClient, cluster_client: Any) -> None:
    from kubernetes.client import VersionApi

    assert VersionApi(cluster_client).get_code().git_version.startswith(f"v1.{cluster.minor}.")


@pytest.fixture
def release(engine: Any, registry: Registry, namespace: str, cluster: NamespaceClient) -> Iterator[Release]:
    """A release of a program that answers with its environment; all of it is gone afterwards."""
    repository = f"{registry.address}/{namespace}"
    digest = built(engine, repository, "one", APP.replace("{text!r}", repr("one")))
    yield RELEASE.model_copy(update={"image": repository, "digest": digest})
    workload = Reference(api_version="apps/v1", kind="Deployment", name="hello")
    cluster.delete(workload, labels_of("hello", "production"))
    remove_later(repository)


def test_it_answers_by_its_service_as_it_was_told_to(release: Release, cluster: NamespaceClient) -> None:
    app = {**EVERYTHING, "service_account": None, "image_pull_secrets": [], "ready": "/", "alive": "/"}
    app["replicas"] = 1
    settings = AppSettings.model_validate(app)
    made = objects_of_app(settings, service="hello", environment="production", release=release)
    secret = secret_of_app(
        settings, service="hello", environment="production", secret=lambda one: f"of {one}"
    )
    assert secret is not None
    _, service = cluster.apply(labelled([secret, *made], service="hello", environment="production"))[1:]

    url = f"http://{service['spec']['clusterIP']}"

    def answer() -> str | None:
        try:
            return httpx.get(url, trust_env=False).text
        except httpx.TransportError:
            return None

    assert wait_until(answer, "it answers", timeout=90) == "one"
    told = httpx.get(f"{url}/env", trust_env=False).json()
    assert told["PASSWORD"] == "of db"
    assert told["GREETING"] == "$(id); $$ $5"
    assert (told["PORT"], told["HOST"]) == ("9000", "0.0.0.0")
    assert (told["CD_VERSION"], told["CD_RELEASE"]) == ("1.0.0", release.digest)
    assert not any(name.startswith("HELLO_") for name in told), "variables of Services of the namespace"
