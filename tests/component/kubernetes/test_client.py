"""Objects on a cluster: applied by the server, refused with reasons, compared, and deleted when ours."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from tests.support.cluster import Counted

from airflow_cd.exceptions import DeployConflictError, FieldConflictError, ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import Reference, reference_of

LABELS = {"airflow-cd/service": "web", "airflow-cd/environment": "production"}


def config(name: str = "settings", /, labels: dict[str, str] = LABELS, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def deployment(**changes: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"airflow-cd/digest": "sha256:1"}},
        "spec": {"containers": [{"name": "web", "image": "busybox:1.36"}]},
    }
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template, **changes}
    metadata = {"name": "web", "labels": dict(LABELS)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def edit(
    cluster: NamespaceClient, obj: dict[str, Any], patch: dict[str, Any], manager: str = "carol"
) -> None:
    """Change an object as another user."""
    other = NamespaceClient(lambda: cluster.client, cluster.namespace, "elsewhere", field_manager=manager)
    assert other.merge(reference_of(obj), patch) is not None


def test_applied_objects_are_there_and_applying_them_again_changes_nothing(cluster: NamespaceClient) -> None:
    first = cluster.apply([config(a="1"), deployment()])
    again = cluster.apply([config(a="1"), deployment()])
    found = cluster.get("v1", "ConfigMap", "settings")
    assert found is not None and found["data"] == {"a": "1"}
    assert found["metadata"]["namespace"] == cluster.namespace
    # The Deployment's controller writes to it as well, but not to what is wanted of it.
    assert first[0]["metadata"]["resourceVersion"] == again[0]["metadata"]["resourceVersion"]
    assert first[1]["metadata"]["generation"] == again[1]["metadata"]["generation"] == 1


def test_what_is_not_given_any_more_is_removed_and_what_others_set_stays(cluster: NamespaceClient) -> None:
    cluster.apply([config(a="1", b="2")])
    edit(cluster, config(), {"data": {"theirs": "3"}})
    (now,) = cluster.apply([config(a="1")])
    assert now["data"] == {"a": "1", "theirs": "3"}


def test_an_object_costs_one_request(cluster_client: Any, namespace: str) -> None:
    counted = Counted(cluster_client)
    cluster = NamespaceClient(lambda: counted, namespace, "web")
    most = {"type": "Container", "max": {"memory": "1Gi"}}
    limits = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "web"},
        "spec": {"limits": [most]},
    }
    assert len(counted.during(lambda: cluster.apply([config(), deployment()]))) == 2
    # What this kind is called must be asked, once.
    assert len(counted.during(lambda: cluster.apply([limits]))) == 2
    assert len(counted.during(lambda: cluster.apply([limits, config()]))) == 2
    assert len(counted.during(lambda: cluster.diff([limits, config()]))) == 4
    assert len(counted.during(lambda: cluster.delete(reference_of(config()), LABELS))) == 2


def test_a_conflict_names_every_field_and_who_manages_it(cluster: NamespaceClient) -> None:
    cluster.apply([config(a="1", b="2")])
    edit(cluster, config(), {"data": {"a": "by hand"}}, "carol")
    edit(cluster, config(), {"data": {"b": "by hand"}}, "dave")
    with pytest.raises(FieldConflictError) as refused:
        cluster.apply([config(a="3", b="4")])
    text = str(refused.value)
    assert "ConfigMap/settings" in text and "on_conflict: take" in text
    assert ".data.a is managed by 'carol'" in text and ".data.b is managed by 'dave'" in text
    (now,) = cluster.apply([config(a="3", b="4")], take=True)
    assert now["data"] == {"a": "3", "b": "4"}


def test_a_check_names_all_problems_and_changes_nothing(cluster: NamespaceClient) -> None:
    cluster.apply([config(a="1")])
    edit(cluster, config(), {"data": {"a": "by hand"}})
    wrong = deployment(selector={"matchLabels": {"app": "other"}})
    with pytest.raises(ManifestError) as refused:
        cluster.validate([config("new", a="1"), config(a="2"), wrong])
    assert "spec.template.metadata.labels" in str(refused.value)
    assert ".data.a is managed by 'carol'" in str(refused.value)
    assert cluster.get("v1", "ConfigMap", "new") is None
    with pytest.raises(FieldConflictError, match="carol"):
        cluster.validate([config(a="2")])
    cluster.validate([config(a="2")], take=True)
    found = cluster.get("v1", "ConfigMap", "settings")
    assert found is not None and found["data"] == {"a": "by hand"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (
            deployment(replica=2),
            r"Deployment/web is refused:\n  spec\.replica: field not declared.*kubectl explain deployment",
        ),
        (deployment(replicas="two"), "Deployment/web.*spec.replicas"),
        (
            deployment(template={"metadata": {"labels": {"app": "web"}}, "spec": {}}),
            "Deployment/web.*contain",
        ),
        (config() | {"apiVersion": "v9"}, "no kind ConfigMap of v9"),
        (config() | {"apiVersion": "shop.example/v1", "kind": "Shop"}, "no kind Shop of shop.example/v1"),
        (config() | {"kind": "Namespace"}, "Namespace/settings is cluster-scoped"),
        (config() | {"status": {"a": "b"}}, "ConfigMap/settings was read from a cluster: take status"),
        (config() | {"metadata": {"name": "a", "uid": "b"}}, "ConfigMap/a was read from a cluster: take uid"),
        (config() | {"metadata": {"name": "a", "namespace": "default"}}, "names the namespace 'default'"),
        (config() | {"metadata": {}}, "needs apiVersion, kind and metadata.name"),
        (config("Not_A_Name"), "metadata.name"),
    ],
)
def test_what_cannot_be_deployed_is_named(
    cluster: NamespaceClient, wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(ManifestError, match=f"(?s)web in production.*{named}"):
        cluster.apply([wrong])


def test_a_kind_that_only_newer_clusters_have_is_named(older_cluster: NamespaceClient) -> None:
    job = config() | {"apiVersion": "batch/v1", "kind": "CronJob"}
    with pytest.raises(ManifestError, match="(?s)web in production.*no kind CronJob of batch/v1"):
        older_cluster.apply([job])


def test_nothing_is_changed_when_an_object_is_not_for_this_namespace(cluster: NamespaceClient) -> None:
    foreign = config("b") | {"metadata": {"name": "b", "namespace": "default"}}
    with pytest.raises(ManifestError, match="default"):
        cluster.apply([config("a"), foreign])
    assert cluster.get("v1", "ConfigMap", "a") is None


def test_what_cannot_be_changed_says_what_to_do(cluster: NamespaceClient) -> None:
    cluster.apply([deployment()])
    labels = {"app": "other"}
    template = {**deployment()["spec"]["template"], "metadata": {"labels": labels}}
    changed = deployment(selector={"matchLabels": labels}, template=template)
    with pytest.raises(
        ManifestError, match=r"(?s)Deployment/web.*spec\.selector.*Give the object another name"
    ):
        cluster.apply([changed])


def test_a_namespace_that_is_not_there_is_named(cluster_client: Any) -> None:
    nowhere = NamespaceClient(lambda: cluster_client, "cd-nowhere", "web")
    with pytest.raises(TargetError, match="namespace cd-nowhere does not exist"):
        nowhere.apply([config()])
    assert nowhere.get("v1", "ConfigMap", "settings") is None


def test_a_full_quota_is_told(cluster: NamespaceClient) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}}
    # Its controller has to count first: until then the server refuses for that reason.
    cluster.apply([quota | {"spec": {"hard": {"count/configmaps": "0"}}}])
    with pytest.raises(ManifestError, match="(?s)web in production: the cluster refuses.*quota"):
        for number in range(1000):
            cluster.apply([config(f"c{number}")])


def test_objects_are_found_by_their_labels(cluster: NamespaceClient) -> None:
    cluster.apply([config("a"), config("b", labels={}), deployment()])
    assert [reference_of(one).described for one in cluster.list("v1", "ConfigMap", LABELS)] == ["ConfigMap/a"]
    assert cluster.list("apps/v1", "Deployment", LABELS)[0]["spec"]["replicas"] == 0
    with pytest.raises(ManifestError, match="no kind Shop"):
        cluster.list("shop.example/v1", "Shop", LABELS)


def test_only_what_is_ours_is_deleted(cluster: NamespaceClient) -> None:
    mine, theirs = cluster.apply([config("mine"), config("theirs", labels={"airflow-cd/service": "shop"})])
    assert not cluster.delete(reference_of(theirs), LABELS)
    assert not cluster.delete(reference_of(mine).model_copy(update={"uid": "another"}), LABELS)
    assert cluster.get("v1", "ConfigMap", "mine") is not None
    assert cluster.delete(reference_of(mine), LABELS)
    assert not cluster.delete(reference_of(mine), LABELS)
    assert cluster.get("v1", "ConfigMap", "mine") is None
    assert cluster.get("v1", "ConfigMap", "theirs") is not None


def test_what_was_removed_with_its_kind_is_deleted_already(cluster: NamespaceClient) -> None:
    gone = Reference(api_version="shop.example/v1", kind="Shop", name="a")
    assert not cluster.delete(gone, LABELS)


def test_what_is_there_is_not_made_again(cluster: NamespaceClient) -> None:
    cluster.create(config(a="1"))
    with pytest.raises(DeployConflictError, match="ConfigMap/settings"):
        cluster.create(config(a="2"))


def test_a_change_that_expects_another_version_is_refused(cluster: NamespaceClient) -> None:
    made = cluster.create(config(a="1"))
    metadata = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    assert cluster.merge(reference_of(made), {**metadata, "data": {"a": "2"}}) is not None
    with pytest.raises(DeployConflictError, match="ConfigMap/settings was changed by another client"):
        cluster.merge(reference_of(made), {**metadata, "data": {"a": "3"}})


def test_what_an_application_would_change_is_shown(cluster: NamespaceClient) -> None:
    cluster.apply([config(a="1"), deployment()])
    assert cluster.diff([config(a="1"), deployment()]) == []
    edit(cluster, deployment(), {"spec": {"replicas": 3}})
    changed, new = cluster.diff([config(a="1"), deployment(), config("more")])
    assert changed.reference.described == "Deployment/web" and changed.reference.uid
    lines = changed.text.splitlines()
    assert lines[:2] == ["--- cluster/Deployment/web", "+++ release/Deployment/web"]
    assert {"-  replicas: 3", "+  replicas: 0"} <= set(lines)
    # Only that: what the server keeps, and how far the Deployment is, is no difference.
    assert sum(line.startswith(("-", "+")) for line in lines) == 4
    assert (new.reference.described, new.text) == ("ConfigMap/more", "new")
    found = cluster.get("apps/v1", "Deployment", "web")
    assert found is not None and found["spec"]["replicas"] == 3


def test_what_a_controller_writes_meanwhile_is_no_difference(cluster: NamespaceClient) -> None:
    class Busy(Counted):
        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            if method == "PATCH" and len(self.requests) == 1:
                edit(cluster, config(), {"metadata": {"annotations": {"controller": "was here"}}})
            return super().call_api(path, method, *args, **kwargs)

    cluster.apply([config(a="1")])
    watching = NamespaceClient(lambda: Busy(cluster.client), cluster.namespace, "web")
    assert watching.diff([config(a="1")]) == []


def test_that_another_release_was_applied_is_no_difference(cluster: NamespaceClient) -> None:
    cluster.apply([deployment()])
    other = deployment()
    other["metadata"]["annotations"] = {"airflow-cd/digest": "sha256:2"}
    other["spec"]["template"]["metadata"]["annotations"] = {"airflow-cd/digest": "sha256:2"}
    assert cluster.diff([other]) == []


def test_values_of_secrets_are_not_shown(cluster: NamespaceClient) -> None:
    def secret(**data: str) -> dict[str, Any]:
        coded = {name: b64encode(value.encode()).decode() for name, value in data.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": coded}

    cluster.apply([secret(user="ada-lovelace", password="first-password")])
    (found,) = cluster.diff([secret(user="ada-lovelace", password="second-password")])
    assert "-  password: (masked, before)" in found.text and "+  password: (masked, after)" in found.text
    for value in ("ada-lovelace", "first-password", "second-password"):
        assert value not in found.text and b64encode(value.encode()).decode() not in found.text


def test_a_refused_secret_is_not_quoted(cluster: NamespaceClient) -> None:
    metadata = {"name": "login"}
    wrong = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"password": "hunter2-open"}}
    with pytest.raises(ManifestError, match="Secret/login is refused") as refused:
        cluster.apply([wrong])
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None and refused.value.__suppress_context__
