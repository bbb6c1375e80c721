"""The record in its ConfigMap: compare-and-set, and nothing but a whole record is one."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from tests.support.cluster import Counted
from tests.support.releases import NEW_YEAR, release_of

from airflow_cd.exceptions import DeployConflictError, ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import Reference
from airflow_cd.model.rollout import Phase, Progress
from airflow_cd.targets.kubernetes.state_store import StateStore, StoredRecord, UnreadableError
from airflow_cd.targets.record import Deployed, Hold, Record, Rollout

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
WEB = Reference(api_version="apps/v1", kind="Deployment", name="web", uid="u1")


@pytest.fixture
def records(cluster: NamespaceClient) -> StateStore:
    return StateStore(cluster, "web", "production")


def record(generation: int = 1) -> Record:
    """Return a record in which every field is used."""
    deployed = Deployed(release=release_of(ONE), deployed_at=NEW_YEAR, actor="web_delivery/run")
    progress = Progress(phase=Phase.PAUSED, step=1, weight=10, since=NEW_YEAR, moved_at=NEW_YEAR)
    return Record(
        generation=generation,
        current=deployed,
        previous=(deployed, deployed),
        hold=Hold(by="carol", since=NEW_YEAR),
        rollout=Rollout(token="t", candidate=deployed, progress=progress, deadline=timedelta(minutes=3)),
    )


def noise(length: int) -> str:
    """Return a text that nothing makes shorter by much."""
    return "".join(Random(0).choices("0123456789abcdefghijklmnopqrstuvwxyz", k=length))


def config_map(cluster: NamespaceClient, records: StateStore) -> dict[str, Any]:
    found = cluster.get("v1", "ConfigMap", records.name)
    assert found is not None
    return found


def test_where_nothing_was_deployed_there_is_an_empty_record(records: StateStore) -> None:
    assert records.read() == StoredRecord(Record(), (), None)


def test_what_is_written_is_read(records: StateStore) -> None:
    made = records.write(record(), [WEB], None)
    assert made == records.read() == StoredRecord(record(), (WEB,), made.version)
    replaced = records.write(record(2), [], made.version)
    assert replaced == records.read() == StoredRecord(record(2), (), replaced.version)


def test_people_can_read_it(cluster: NamespaceClient, records: StateStore) -> None:
    records.write(record(), [WEB], None)
    found = config_map(cluster, records)
    assert found["metadata"]["name"] == "cd.web.production"
    assert found["metadata"]["labels"]["airflow-cd/service"] == "web"
    assert json.loads(found["data"]["record"])["generation"] == 1
    assert json.loads(found["data"]["inventory"])[0]["name"] == "web"


def test_who_did_not_see_the_last_change_is_refused(records: StateStore) -> None:
    made = records.write(record(), [], None)
    with pytest.raises(DeployConflictError, match="generation 1 now"):
        records.write(record(5), [], None)
    records.write(record(2), [], made.version)
    with pytest.raises(DeployConflictError, match="generation 2 now"):
        records.write(record(5), [], made.version)
    assert records.read().record.generation == 2


def test_of_many_that_write_at_once_one_does(cluster: NamespaceClient, records: StateStore) -> None:
    version = records.write(record(), [], None).version
    together, written = threading.Barrier(6), []

    def write(number: int) -> None:
        together.wait()
        try:
            written.append(StateStore(cluster, "web", "production").write(record(number), [], version))
        except DeployConflictError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(10, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [records.read()]


def test_a_removed_record_is_not_written_again_by_who_saw_it(
    cluster: NamespaceClient, records: StateStore
) -> None:
    made = records.write(record(), [], None)
    with records.lease.held("test", "nothing"):
        records.remove()
    with pytest.raises(DeployConflictError, match="removed the record"):
        records.write(record(2), [], made.version)
    assert records.read() == StoredRecord(Record(), (), None)


class Deaf:
    """A client that loses the answer to every change, and asks again."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def call_api(self, path: str, method: str, **kwargs: Any) -> Any:
        if method != "GET":
            self._client.call_api(path, method, **kwargs)
        return self._client.call_api(path, method, **kwargs)


def test_what_was_written_before_the_answer_was_lost_counts(
    cluster: NamespaceClient, records: StateStore
) -> None:
    deaf = NamespaceClient(lambda: Deaf(cluster.client), cluster.namespace, "web in production")
    made = StateStore(deaf, "web", "production").write(record(), [WEB], None)
    assert made == records.read()
    again = StateStore(deaf, "web", "production").write(record(2), [WEB], made.version)
    assert again == records.read()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"record": "{", "inventory": "[]"}, "Invalid JSON"),
        ({"record": '{"generation": "many"}', "inventory": "[]"}, "generation"),
        ({"record": '{"by_a_newer_version": 1}', "inventory": "[]"}, "by_a_newer_version"),
        ({"record": "{}", "inventory": '[{"kind": "Pod"}]'}, "api_version"),
        ({"record": "{}"}, "no key 'inventory'"),
        ({"inventory": "[]"}, "no key 'record'"),
    ],
)
def test_what_is_no_record_is_never_taken_for_an_empty_one(
    cluster: NamespaceClient, records: StateStore, data: dict[str, str], named: str
) -> None:
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": records.name}, "data": data}
    cluster.create(made)
    with pytest.raises(
        TargetError, match="(?s)ConfigMap cd.web.production of namespace cd-.*delete"
    ) as found:
        records.read()
    assert named in str(found.value)
    with pytest.raises(TargetError, match="cannot be read"):
        records.write(record(), [], None)


def test_a_large_record_is_kept_all_the_same(cluster: NamespaceClient, records: StateStore) -> None:
    small, large = record(), record(2).model_copy(update={"hold": Hold(by=noise(400_000), since=NEW_YEAR)})
    made = records.write(small, [], None)
    made = records.write(large, [WEB], made.version)
    assert records.read() == StoredRecord(large, (WEB,), made.version)
    assert "data" not in config_map(cluster, records)
    made = records.write(small, [], made.version)
    assert records.read() == made
    assert "binaryData" not in config_map(cluster, records)


def test_what_no_config_map_holds_is_refused_and_the_record_stays(records: StateStore) -> None:
    made = records.write(record(), [], None)
    huge = record(2).model_copy(update={"hold": Hold(by=noise(3_000_000), since=NEW_YEAR)})
    with pytest.raises(ManifestError, match="web in production: the record has .* bytes"):
        records.write(huge, [], made.version)
    held = records.lease.held("test", "one")
    with held, pytest.raises(ManifestError, match=f"release {ONE} consists of has .* bytes"):
        records.keep_objects(ONE, [{"data": noise(3_000_000)}])
    assert records.read() == made


def test_what_releases_consist_of_is_kept_until_it_is_forgotten(
    cluster: NamespaceClient, records: StateStore
) -> None:
    objects: list[dict[str, Any]] = [{"kind": "Service", "metadata": {"name": "ü"}}, {"data": noise(100_000)}]
    staging = StateStore(cluster, "web", "staging")
    # A service may have ConfigMaps of its own, and another environment its own releases.
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own", "labels": records.labels}}
    cluster.apply([own])
    with records.lease.held("test", "one"), staging.lease.held("test", "one"):
        one, two = records.keep_objects(ONE, objects), records.keep_objects(TWO, [])
        assert records.keep_objects(ONE, objects) == one != two
        assert (records.objects(one), records.objects(two)) == (objects, [])
        there = staging.keep_objects(ONE, [{}])
        records.forget_objects({two})
    assert (records.objects(one), records.objects(two), staging.objects(there)) == (None, [], [{}])
    assert cluster.get("v1", "ConfigMap", "own") is not None


def test_what_version_0_1_kept_is_found_by_the_release(cluster: NamespaceClient, records: StateStore) -> None:
    kept = gzip.compress(json.dumps([{"a": 1}]).encode())
    metadata = {"name": f"{records.name}.{ONE[7:19]}", "annotations": {"airflow-cd/digest": ONE}}
    data = {"objects": base64.b64encode(kept).decode()}
    cluster.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}])
    assert records.objects(ONE, of_release=True) == [{"a": 1}]


def kept(records: StateStore, objects: list[dict[str, Any]]) -> tuple[str, Reference]:
    with records.lease.held("test", "one"):
        digest = records.keep_objects(ONE, objects)
    return digest, Reference(api_version="v1", kind="ConfigMap", name=f"{records.name}.{digest[7:19]}")


def test_another_one_whose_digest_begins_alike_is_not_taken_for_it(records: StateStore) -> None:
    digest, _ = kept(records, [{"a": 1}])
    assert records.objects(digest[:40] + "f" * 31) is None


def test_what_was_kept_and_cannot_be_read_is_named(cluster: NamespaceClient, records: StateStore) -> None:
    digest, where = kept(records, [])
    cluster.merge(where, {"binaryData": {"objects": "bm90IGd6aXA="}})
    with pytest.raises(UnreadableError, match=f"ConfigMap {where.name} .*Deploy the release again"):
        records.objects(digest)


def test_what_was_kept_and_changed_since_is_refused(cluster: NamespaceClient, records: StateStore) -> None:
    digest, where = kept(records, [{"kind": "Deployment", "image": "ours"}])
    changed = gzip.compress(json.dumps([{"kind": "Deployment", "image": "theirs"}]).encode())
    cluster.merge(where, {"binaryData": {"objects": base64.b64encode(changed).decode()}})
    with pytest.raises(UnreadableError, match=f"ConfigMap {where.name} .*it was changed.*Deploy the release"):
        records.objects(digest)


def test_what_unpacks_to_more_than_any_release_is_refused(
    cluster: NamespaceClient, records: StateStore
) -> None:
    digest, where = kept(records, [])
    bomb = gzip.compress(b" " * 100_000_000)
    cluster.merge(where, {"binaryData": {"objects": base64.b64encode(bomb).decode()}})
    with pytest.raises(UnreadableError, match="bytes when unpacked"):
        records.objects(digest)


def test_a_removed_service_leaves_nothing(cluster: NamespaceClient, records: StateStore) -> None:
    records.write(record(), [], None)
    kept(records, [])
    staging = StateStore(cluster, "web", "staging")
    staging.write(record(), [], None)
    with records.lease.held("test", "nothing"):
        records.remove()
        records.remove()
    assert cluster.list("v1", "ConfigMap", records.labels) == []
    assert staging.read().record == record()


def test_services_whose_names_are_alike_do_not_share_a_record(cluster: NamespaceClient) -> None:
    names = [("my-shop", "eu"), ("my_shop", "eu"), ("my-shop-", "eu"), ("my-shop_", "eu"), ("my", "shop-eu")]
    for number, (service, environment) in enumerate(names):
        StateStore(cluster, service, environment).write(record(number), [], None)
    found = [StateStore(cluster, *name).read().record.generation for name in names]
    assert found == list(range(len(names)))


def test_reading_and_writing_are_a_request_each(cluster_client: Any, namespace: str) -> None:
    counted = Counted(cluster_client)
    records = StateStore(NamespaceClient(lambda: counted, namespace, "web"), "web", "production")
    made = records.write(record(), [], None)
    assert len(counted.during(records.read)) == 1
    assert len(counted.during(lambda: records.write(record(2), [], made.version))) == 1
    with records.lease.held("test", "one"):
        one = records.keep_objects(ONE, [])
        assert len(counted.during(lambda: records.forget_objects({one}))) == 1
