"""Deploying and rolling back on a Docker engine, against ``docker run`` and the same waiting by hand."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.images import Registry
from tests.support.places import DockerPlace

from airflow_cd.model.release import Release
from airflow_cd.targets.docker.proxy import Probe
from benchmarks.report import Result, report

LIMIT = 1.5
ROUNDS = 7
# As the README's services are watched: three good samples in a row, a second apart.
SAMPLES, INTERVAL = 3, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not os.environ.get("DOCKER_HOST"):
        raise SystemExit("needs a Docker engine: set DOCKER_HOST")
    import docker

    client = docker.from_env()
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder:
        registry = Registry(Path(folder) / "registry")
        place = DockerPlace(Path(folder), client, registry, drain="5s")
        try:
            results = _measure(place, client)
        finally:
            place.close()
            registry.stop()
    report(results, args.json)


def _measure(place: DockerPlace, client: Any) -> list[Result]:
    releases = [place.release(text) for text in ("one", "two")]
    for release in releases:  # both images are on the engine then: pulling is no matter of ours
        place.deploy(release)
    by_hand, deploys, rollbacks = [], [], []
    old = _run(client, releases[0], place)
    for turn in range(ROUNDS):
        release = releases[turn % 2]
        old, seconds = _timed(_by_hand, client, release, place, old)
        by_hand.append(seconds)
        deploys.append(_timed(_deploy, place, release)[1])
        rollbacks.append(_timed(_roll_back, place, release.digest)[1])
        place.deploy(release)
    old.remove(force=True)
    reference = statistics.median(by_hand)
    what = f"docker run, waiting and stopping by hand ({min(by_hand):.2f} to {max(by_hand):.2f} s)"
    ours = {"deploy": deploys, "rollback": rollbacks}
    return [
        Result("docker", f"{name} and health / {what}", statistics.median(taken), reference, "s", LIMIT)
        for name, taken in ours.items()
    ]


def _by_hand(client: Any, release: Release, place: DockerPlace, old: Any) -> Any:
    """Start beside, wait until it answers, end the old one: what a careful person types."""
    new = _run(client, release, place)
    probe = Probe(client.containers.get(f"cd.{place.service}.production.front"))
    while (address := _address(new, place)) is None or probe.status(address, 8080, "/") is None:
        time.sleep(0.1)
    old.stop(timeout=10)
    old.remove()
    _watch(place)
    return new


def _deploy(place: DockerPlace, release: Release) -> None:
    place.deploy(release)
    _watch(place)


def _roll_back(place: DockerPlace, bad: str) -> None:
    place.target.rollback(bad=bad, actor="bench")
    _watch(place)


def _watch(place: DockerPlace) -> None:
    """The health checks' waiting, which is the same for all."""
    for number in range(SAMPLES):
        if number:
            time.sleep(INTERVAL)
        assert place.served() in ("one", "two")


def _run(client: Any, release: Release, place: DockerPlace) -> Any:
    return client.containers.run(
        release.pull_spec,
        detach=True,
        init=True,
        environment={"PORT": "8080", "HOST": "0.0.0.0"},
        labels={"cd-benchmark": "1"},
        network=f"cd.{place.service}.production",
    )


def _address(container: Any, place: DockerPlace) -> str | None:
    container.reload()
    found = container.attrs["NetworkSettings"]["Networks"][f"cd.{place.service}.production"]["IPAddress"]
    return found or None


def _timed(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    began = time.monotonic()
    result = work(*args)
    return result, time.monotonic() - began


if __name__ == "__main__":
    main()
