"""The watch that tells a rollout when to look, on a real cluster, through lines that break."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from tests.support.tcp_relay import TcpRelay

from airflow_cd.kubernetes import watch as module
from airflow_cd.kubernetes.watch import watch_namespace

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

OURS = {"airflow-cd/service": "web", "airflow-cd/environment": "production"}
OTHERS = {"airflow-cd/service": "shop", "airflow-cd/environment": "production"}
# Longer than the report of any change takes; what waits for it has failed.
LONG = 3600.0
SOON = 30.0


class Place:
    """A namespace, and a line to the cluster that can be cut."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self.api, self.namespace = api, namespace
        address = urlsplit(api.configuration.host)
        self._host = address.hostname
        self.relay = TcpRelay((address.hostname or "", address.port or 443))  # type: ignore[arg-type]

    def client(self) -> ApiClient:
        """A client whose line goes through the relay."""
        settings, ours = self._copied(), self.api.configuration
        settings.cert_file, settings.key_file = ours.cert_file, ours.key_file
        settings.api_key = ours.api_key
        return type(self.api)(settings)

    def nobody(self) -> ApiClient:
        """A client without credentials."""
        return type(self.api)(self._copied())

    async def change(self, labels: dict[str, str], name: str = "") -> None:
        """Make a Deployment of no pods with these labels."""
        from kubernetes_asyncio.client import AppsV1Api

        name = name or f"d-{uuid.uuid4().hex[:8]}"
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        }
        await AppsV1Api(self.api).create_namespaced_deployment(
            self.namespace,
            {  # type: ignore[arg-type]
                "metadata": {"name": name, "labels": labels},
                "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template},
            },
        )

    def _copied(self) -> Configuration:
        settings = type(self.api.configuration)(host=f"https://127.0.0.1:{self.relay.port}")
        settings.ssl_ca_cert = self.api.configuration.ssl_ca_cert
        settings.tls_server_name = self._host  # type: ignore[assignment]
        return settings


@pytest.fixture
async def place(cluster_is_up: float) -> AsyncIterator[Place]:
    from kubernetes_asyncio.client import CoreV1Api
    from kubernetes_asyncio.config import new_client_from_config

    # Its default is what the variable was when the library was imported, maybe in another test.
    api = await new_client_from_config(config_file=os.environ["KUBECONFIG"])
    core, name = CoreV1Api(api), f"cd-watching-{uuid.uuid4().hex[:8]}"
    await core.create_namespace({"metadata": {"name": name}})  # type: ignore[arg-type]
    one = Place(api, name)
    yield one
    one.relay.cut()
    await core.delete_namespace(name)
    await api.close()


async def quiet(changes: module.Watched) -> None:
    """Wait until the watch has reported what was there at its start, and of all changes so far."""
    await asyncio.wait_for(changes.wait(SOON), SOON)
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        await changes.wait(1.0)
        if loop.time() - began >= 1.0:
            return


async def told(waiting: asyncio.Task[None]) -> None:
    """Wait until a wait returns."""
    await asyncio.wait_for(waiting, SOON)


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "was lost" in one.getMessage()]


async def happened(probe: Callable[[], object]) -> None:
    async def until() -> None:
        while not probe():
            await asyncio.sleep(0.05)

    await asyncio.wait_for(until(), SOON)


async def test_cancelled_in_the_moment_of_a_change_the_wait_ends() -> None:
    changes = module.Watched()
    waiting = asyncio.create_task(changes.wait(SOON))
    await happened(lambda: changes.changed._waiters)
    changes.changed.set()
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_only_changes_of_what_is_watched_are_told(place: Place) -> None:
    async with watch_namespace(place.client, place.namespace, OURS) as changes:
        await quiet(changes)
        waiting = asyncio.create_task(changes.wait(LONG))
        async with watch_namespace(place.client, place.namespace, OTHERS) as others:
            await quiet(others)
            theirs = asyncio.create_task(others.wait(LONG))
            await place.change(OTHERS)
            await told(theirs)
        assert not waiting.done()
        await place.change(OURS)
        await told(waiting)


async def test_what_changes_while_nobody_waits_is_told_by_the_next_wait(place: Place) -> None:
    async with watch_namespace(place.client, place.namespace, OURS) as changes:
        await quiet(changes)
        await place.change(OURS)
        await happened(changes.changed.is_set)
        await told(asyncio.create_task(changes.wait(LONG)))


async def test_without_changes_a_wait_returns_after_its_time(place: Place) -> None:
    async with watch_namespace(place.client, place.namespace, OURS) as changes:
        await quiet(changes)
        await told(asyncio.create_task(changes.wait(0.1)))
        await told(asyncio.create_task(changes.wait(0.0)))


async def test_a_cut_connection_is_made_again_and_nothing_is_missed(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with watch_namespace(place.client, place.namespace, OURS, ["Deployment"]) as changes:
        await quiet(changes)
        waiting = asyncio.create_task(changes.wait(LONG))
        place.relay.cut()
        await happened(lambda: lost(caplog))
        await place.change(OURS)
        assert not waiting.done()
        place.relay.mend()
        await told(waiting)
    assert len(lost(caplog)) == 1
    assert [one.getMessage() for one in caplog.records if one.getMessage().endswith("is back")]


async def test_after_a_cut_it_goes_on_from_the_last_change_it_saw(place: Place) -> None:
    async with watch_namespace(place.client, place.namespace, OURS, ["Deployment"]) as changes:
        await place.change(OURS)
        await quiet(changes)
        waiting, before = asyncio.create_task(changes.wait(LONG)), place.relay.accepted
        place.relay.drop()
        await happened(lambda: place.relay.accepted > before)
        async with watch_namespace(place.client, place.namespace, OURS, ["Deployment"]) as later:
            await quiet(later)
        # One that began again would have reported the Deployment that is there.
        assert not waiting.done()
        await place.change(OURS)
        await told(waiting)


async def test_a_silent_connection_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_SECONDS", 2)
    async with watch_namespace(place.client, place.namespace, OURS, ["Deployment"]) as changes:
        await quiet(changes)
        place.relay.go_silent()
        waiting = asyncio.create_task(changes.wait(LONG))
        await place.change(OURS)
        await told(waiting)


async def test_a_version_that_the_server_forgot_is_left_for_what_is_there_now(place: Place) -> None:
    changed = asyncio.Event()
    watch = module._Watch(place.client, "Deployment", place.namespace, OURS, changed)
    watch._version = "1"
    watching = asyncio.create_task(watch.run())
    await happened(changed.is_set)
    changed.clear()
    await place.change(OURS)
    await happened(changed.is_set)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_refused_watch_is_said_once_raises_nothing_and_does_not_hammer(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with watch_namespace(place.nobody, place.namespace, OURS, ["Deployment"]) as changes:
        await happened(lambda: place.relay.accepted >= 2)
        await changes.wait(2.0)
    assert place.relay.accepted < 10
    assert len(lost(caplog)) == 1
    assert "403" in lost(caplog)[0] and "cannot watch resource" in lost(caplog)[0]


async def test_a_client_that_cannot_be_made_is_tried_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    clients: list[Callable[[], ApiClient]] = [lambda: 1 / 0, place.client]  # type: ignore[list-item, return-value]

    def make() -> ApiClient:
        return clients.pop(0)() if len(clients) > 1 else clients[0]()

    async with watch_namespace(make, place.namespace, OURS, ["Deployment"]) as changes:
        await place.change(OURS)
        await told(asyncio.create_task(changes.wait(LONG)))
    assert len(lost(caplog)) == 1


async def test_nothing_is_left_when_it_ends(place: Place) -> None:
    made: list[ApiClient] = []

    def make() -> ApiClient:
        made.append(place.client())
        return made[-1]

    before = asyncio.all_tasks()
    async with watch_namespace(make, place.namespace, OURS) as changes:
        await quiet(changes)
    assert asyncio.all_tasks() == before
    assert made and all(one.rest_client.pool_manager.closed for one in made)


async def test_many_watch_in_one_loop(place: Place) -> None:
    async def one(number: int) -> None:
        labels = {**OURS, "airflow-cd/service": f"web{number}"}
        async with watch_namespace(place.client, place.namespace, labels) as changes:
            await quiet(changes)
            waiting = asyncio.create_task(changes.wait(LONG))
            await place.change(labels)
            await told(waiting)

    await asyncio.gather(*(one(number) for number in range(20)))
