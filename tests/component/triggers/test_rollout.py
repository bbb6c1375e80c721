"""Rollouts driven as the triggerer drives them, on a real cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.answering import AnsweringServer, answering_server
from tests.support.images import Registry
from tests.support.places import KubernetesPlace
from tests.support.tcp_relay import TcpRelay

from airflow_cd.model.analysis import Analysis
from airflow_cd.model.release import Release
from airflow_cd.targets.base import ProgressiveTarget
from airflow_cd.targets.record import Record
from airflow_cd.targets.registry import open_target
from airflow_cd.triggers.rollout import RolloutTrigger

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture
def place(tmp_path: Path, engine: Any, registry: Registry, namespace: str) -> Iterator[KubernetesPlace]:
    one = KubernetesPlace(tmp_path, engine, registry, namespace)
    yield one
    one.close()


def begun(place: KubernetesPlace, release: Release, **analyses: Analysis) -> str:
    """Begin a rollout, and return its token."""
    target = place.target
    assert isinstance(target, ProgressiveTarget)
    record = target.record()
    over = record.rollout.token if record.rollout else None
    record = target.begin(
        release, place.store, expected=record.generation, over=over, actor="test", analyses=analyses
    )
    assert record.rollout is not None
    return record.rollout.token


async def fired(trigger: RolloutTrigger) -> dict[str, Any]:
    """Return what the trigger fires."""
    trigger.settle = 0.0
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("it fires")


def trigger_of(place: KubernetesPlace, token: str) -> RolloutTrigger:
    return RolloutTrigger.of(place.service, place.environment, token)


async def test_a_release_that_crashes_is_aborted_and_its_last_words_are_told(place: KubernetesPlace) -> None:
    place.deploy(place.release("one"))
    token = begun(place, place.release("broken", "print('no database'); raise SystemExit(3)"))
    event = await fired(trigger_of(place, token))
    assert event["state"] == "aborted"
    assert "no database" in event["reason"] and "exit code 3" in event["reason"]
    assert place.served() == "one"


@pytest.fixture
def answering() -> Iterator[AnsweringServer]:
    with answering_server() as server:
        yield server


async def test_an_analysis_decides(place: KubernetesPlace, answering: AnsweringServer) -> None:
    errors = Analysis.model_validate(
        {
            "http": {"url": f"{answering.url}/errors", "json": "$.errors"},
            "success": "< 0.1",
            "interval": "200ms",
            "count": 3,
        }
    )
    place.strategy = {"canary": {"steps": [{"weight": 50}, {"analysis": "errors"}]}}
    place.reopen()
    place.deploy(place.release("one"))
    answering.answer({"errors": 0.5})
    event = await fired(trigger_of(place, begun(place, place.release("two"), errors=errors)))
    assert event["state"] == "aborted" and "errors" in event["reason"]
    assert place.served() == "one"
    answering.answer({"errors": 0.0})
    event = await fired(trigger_of(place, begun(place, place.release("three"), errors=errors)))
    assert event["state"] == "promoted"
    assert place.served() == "three"
    current = place.target.record().current
    assert current is not None and [one.value for one in current.measurements] == [0.0] * 3


async def test_an_api_server_that_is_gone_for_a_while_costs_nothing_but_that_while(
    place: KubernetesPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.deploy(place.release("one"))
    token = begun(place, place.release("two"))
    relay, kubeconfig = _behind_relay(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    driving = asyncio.create_task(fired(trigger_of(place, token)))
    while relay.accepted == 0:
        await asyncio.sleep(0.05)
    relay.cut()
    done, _ = await asyncio.wait([driving], timeout=3)
    assert not done
    relay.mend()
    event = await asyncio.wait_for(driving, 120)
    monkeypatch.undo()
    assert (event["state"], place.served()) == ("promoted", "two")


def _behind_relay(folder: Path) -> tuple[TcpRelay, Path]:
    """Return a relay in front of the API server, and a kubeconfig that goes through it."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    cluster = config["clusters"][0]["cluster"]
    host, _, port = cluster["server"].removeprefix("https://").partition(":")
    relay = TcpRelay((host, int(port or 443)))
    # The certificate is that of the host.
    cluster.update(server=f"https://127.0.0.1:{relay.port}", **{"tls-server-name": host})
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return relay, file


async def test_twenty_services_roll_out_at_once(place: KubernetesPlace) -> None:
    one, two = place.release("one"), place.release("two")
    places = [_Sibling(place, number) for number in range(20)]
    assert {await _rolled(sibling, one) for sibling in places[:1]} == {"promoted"}
    for release in (one, two):
        rollouts: list[Awaitable[str]] = [_rolled(sibling, release) for sibling in places]
        assert set(await asyncio.gather(*rollouts)) == {"promoted"}
    records = [sibling.record() for sibling in places]
    assert {record.current and record.current.release.digest for record in records} == {two.digest}
    for sibling in places:
        await asyncio.to_thread(sibling.target.remove)


class _Sibling:
    """Another service that runs the same images."""

    def __init__(self, place: KubernetesPlace, number: int) -> None:
        self.place, self.service = place, f"{place.service}-{number}"
        environment = place.environment
        self.target: Any = open_target(self.service, environment, place.access())
        self.environment = environment

    def record(self) -> Record:
        record: Record = self.target.record()
        return record

    def begin(self, release: Release) -> Record:
        expected = self.record().generation
        begun: Record = self.target.begin(
            release, self.place.store, expected=expected, over=None, actor="test"
        )
        return begun


async def _rolled(sibling: _Sibling, release: Release) -> str:
    record = await asyncio.to_thread(sibling.begin, release)
    if record.rollout is None:  # it runs already
        return "promoted"
    event = await fired(RolloutTrigger.of(sibling.service, sibling.environment, record.rollout.token))
    return str(event["state"])
