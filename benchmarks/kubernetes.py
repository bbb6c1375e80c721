"""
Rolling a release out on a Kubernetes cluster, against ``kubectl apply`` and ``kubectl rollout status``.

Also: how soon a canary whose analysis fails gets no requests any more, and how many requests a rollout costs.
The target's own time is measured, without that of an Airflow task around it, which ``overhead`` measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from tests.support.images import Registry
from tests.support.places import KubernetesPlace

from airflow_cd.model.analysis import Analysis
from airflow_cd.model.release import Release
from airflow_cd.targets.base import ProgressiveTarget
from airflow_cd.triggers.rollout import RolloutTrigger
from benchmarks.report import Result, report

LIMIT = 1.2
# A pod takes from one to three seconds, with either tool.
ROUNDS = 15
ABORTS = 5
INTERVAL = 1.0
# One interval, and so much for taking notice and for the cluster to act.
ACTING_SECONDS = 2.0
# An upper bound for one rollout of a Deployment and a Service, so that it is seen when it grows. Where no
# watch tells when to look, as here, some of them are looks: some thirty requests a second.
MOST_REQUESTS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not os.environ.get("KUBECONFIG") or not os.environ.get("DOCKER_HOST"):
        raise SystemExit("needs a cluster and an engine: set KUBECONFIG and DOCKER_HOST")
    import docker

    logging.disable()  # what is measured is said by the table
    client = docker.from_env()
    with tempfile.TemporaryDirectory(prefix="cd-bench-") as folder, _namespace() as namespace:
        registry = Registry(Path(folder) / "registry")
        place = KubernetesPlace(Path(folder), client, registry, namespace)
        try:
            results = [*_rollouts(place, Path(folder)), _aborts(place)]
        finally:
            place.close()
            registry.stop()
    report(results, args.json)


@contextmanager
def _namespace() -> Iterator[str]:
    name = f"cd-bench-{uuid.uuid4().hex[:8]}"
    subprocess.run(["kubectl", "create", "namespace", name], check=True, stdout=subprocess.DEVNULL)
    try:
        yield name
    finally:
        argv = ["kubectl", "delete", "namespace", name, "--wait=false"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def _rollouts(place: KubernetesPlace, folder: Path) -> list[Result]:
    releases = [place.release(text) for text in ("one", "two")]
    requests = _Counted(place)
    for release in releases:  # both images are on the node then: pulling is no matter of ours
        place.deploy(release)
    ours, theirs, asked, asked_by_kubectl = [], [], [], 0
    for turn in range(ROUNDS):
        release = releases[turn % 2]
        manifest = _by_hand(place, release.pull_spec, folder / "by-hand.json")
        began = time.monotonic()
        asked_by_kubectl = _kubectl(place.namespace, manifest)
        theirs.append(time.monotonic() - began)
        requests.count, began = 0, time.monotonic()
        place.deploy(release)
        ours.append(time.monotonic() - began)
        asked.append(requests.count)
    by_hand = f"({min(theirs):.2f} to {max(theirs):.2f} s)"
    return [
        Result(
            "kubernetes",
            f"rollout / kubectl apply and rollout status {by_hand}",
            statistics.median(ours),
            statistics.median(theirs),
            "s",
            LIMIT,
        ),
        Result(
            "kubernetes",
            "API requests of a rollout / those of kubectl",
            statistics.median(asked),
            asked_by_kubectl,
            "requests",
            limit_value=MOST_REQUESTS,
        ),
    ]


class _Counted:
    """Counts what the place's target asks the cluster."""

    def __init__(self, place: KubernetesPlace) -> None:
        self.count = 0
        client = place.target._cluster.client  # type: ignore[attr-defined]
        plain = client.call_api

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return plain(*args, **kwargs)

        client.call_api = counted


def _by_hand(place: KubernetesPlace, image: str, file: Path) -> Path:
    """Write the same Deployment and Service under another name."""
    from kubernetes import client

    api = place.target._cluster.client  # type: ignore[attr-defined]
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    name = place.service
    objects = []
    for kind, one in (
        ("Deployment", apps.read_namespaced_deployment(name, place.namespace)),
        ("Service", core.read_namespaced_service(name, place.namespace)),
    ):
        spec = api.sanitize_for_serialization(one)["spec"]
        text = json.dumps(spec).replace(f'"{name}', '"by-hand')
        spec = json.loads(text)
        version = "apps/v1" if kind == "Deployment" else "v1"
        if kind == "Deployment":
            spec["template"]["spec"]["containers"][0]["image"] = image
            spec["template"]["metadata"].pop("annotations", None)
        else:
            spec = {"selector": spec["selector"], "ports": spec["ports"]}
        objects.append({"apiVersion": version, "kind": kind, "metadata": {"name": "by-hand"}, "spec": spec})
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return file


def _kubectl(namespace: str, manifest: Path) -> int:
    """Do what a careful person types, and return how many requests that was."""
    asked = 0
    for argv in (["apply", "-f", str(manifest)], ["rollout", "status", "deployment/by-hand"]):
        done = subprocess.run(
            ["kubectl", "-n", namespace, "-v=6", *argv], check=True, capture_output=True, text=True
        )
        asked += done.stderr.count("round_trippers.go")
    return asked


def _aborts(place: KubernetesPlace) -> Result:
    """Let analyses turn bad, and watch when the canary gets its last request."""
    app = {"ready": "/", "replicas": 2, "stop_after": "1s", "grace": "1s"}
    place.reopen(app=app)
    place.deploy(place.release("stable"))
    place.strategy = {"canary": {"steps": [{"weight": 50}, {"analysis": "errors"}]}}
    place.reopen(app=app)
    canary = place.release("canary")
    seconds = max(_abort(place, canary) for _ in range(ABORTS))
    what = (
        f"from a bad sample to the canary's last request, longest of {ABORTS}; analysis every {INTERVAL:g} s"
    )
    return Result("kubernetes", what, seconds, INTERVAL, "s", limit_value=INTERVAL + ACTING_SECONDS)


def _abort(place: KubernetesPlace, canary: Release) -> float:
    """Return the seconds; 0 when no request happened to go there after the bad sample."""
    metric, target = _Metric(), place.target
    query = {"url": metric.url, "json": "$.errors"}
    analysis = {"http": query, "success": "< 0.5", "interval": f"{INTERVAL:g}s", "count": 100}
    assert isinstance(target, ProgressiveTarget)
    record = target.begin(
        canary,
        place.store,
        expected=target.record().generation,
        over=None,
        actor="bench",
        analyses={"errors": Analysis.model_validate(analysis)},
    )
    assert record.rollout is not None
    watch = _Watch(str(target.url()))
    trigger = RolloutTrigger.of(place.service, place.environment, record.rollout.token)
    trigger.settle = 0.0

    def when_served() -> None:
        while "canary" not in watch.last:
            time.sleep(0.05)
        time.sleep(2 * INTERVAL)
        metric.value = 1.0

    turn_bad = threading.Thread(target=when_served)
    turn_bad.start()
    event = asyncio.run(_first(trigger))
    turn_bad.join()
    time.sleep(1)
    watch.stop()
    assert event["state"] == "aborted", event
    assert metric.first_bad is not None
    return max(watch.last["canary"] - metric.first_bad, 0.0)


async def _first(trigger: RolloutTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("it fires")


class _Metric:
    """Serves a number, and remembers when it was bad for the first time."""

    def __init__(self) -> None:
        self.value = 0.0
        self.first_bad: float | None = None
        metric = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if metric.value and metric.first_bad is None:
                    metric.first_bad = time.monotonic()
                body = json.dumps({"errors": metric.value}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()


class _Watch:
    """Asks the service all the time, and remembers when each answer was the last."""

    def __init__(self, url: str) -> None:
        self.last: dict[str, float] = {}
        self._url, self._stop = url, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            self.last[httpx.get(self._url, trust_env=False).text] = time.monotonic()


if __name__ == "__main__":
    main()
