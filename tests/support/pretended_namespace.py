"""
A namespace as the rules of Kubernetes make it from objects, for tests of what those objects do to requests.

Its controllers act one pod at a time, in any order and at any speed, as slow or fast ones would. Deployments
replace their pods with ``maxSurge: 1`` and ``maxUnavailable: 0``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

Object = dict[str, Any]
VERSION = "airflow-cd/version"


@dataclass(eq=False)
class Pod:
    """One pod. :param revision: the pod template that it was made from, as text"""

    owner: str
    revision: str
    labels: dict[str, str]
    version: str
    ready: bool = False


@dataclass
class Namespace:
    """:param broken: versions whose pods never become ready"""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    _revisions: dict[str, str] = field(default_factory=dict)

    def apply(self, obj: Object) -> None:
        key = obj["kind"], obj["metadata"]["name"]
        before = self.objects.get(key)
        if obj["kind"] == "Deployment":
            obj = {**obj, "spec": dict(obj["spec"])}
            spec = obj["spec"]
            if before is not None:
                assert before["spec"]["selector"] == spec["selector"], f"{key}: selectors are immutable"
            # Server-side apply leaves alone what nobody of ours ever set.
            spec.setdefault("replicas", before["spec"]["replicas"] if before is not None else 1)
            labels = spec["template"]["metadata"]["labels"]
            assert spec["selector"]["matchLabels"].items() <= labels.items(), key
            self._revisions[key[1]] = json.dumps(spec["template"], sort_keys=True)
        self.objects[key] = obj

    def delete(self, kind: str, name: str) -> None:
        self.objects.pop((kind, name), None)

    def is_ready(self, obj: Object) -> bool:
        """Return whether the live workload is like this one, and done."""
        live = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if live is None or live["spec"]["template"] != obj["spec"]["template"]:
            return False
        if live["spec"]["replicas"] != obj["spec"].get("replicas", live["spec"]["replicas"]):
            return False
        return self.is_done(obj["metadata"]["name"])

    def is_done(self, name: str) -> bool:
        live = self.objects.get(("Deployment", name))
        if live is None:
            return False
        mine = self.of(name)
        current = all(pod.ready and pod.revision == self._revisions[name] for pod in mine)
        return current and len(mine) == live["spec"]["replicas"]

    def of(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.owner == name]

    def reached(self, service: str) -> list[Pod]:
        """Return the pods to which a Service sends requests."""
        selector = self.objects["Service", service]["spec"]["selector"]
        return [pod for pod in self.pods if pod.ready and selector.items() <= pod.labels.items()]

    def tick(self, random: Random) -> bool:
        """Let some controller do one thing; return whether there was any to do."""
        possible = list(self._possible())
        if possible:
            what, which = random.choice(possible)
            if what == "make":
                self.pods.append(self._pod(which))
            elif what == "ready":
                which.ready = True
            else:
                self.pods.remove(which)
        return bool(possible)

    def _pod(self, name: str) -> Pod:
        metadata = self.objects["Deployment", name]["spec"]["template"]["metadata"]
        return Pod(name, self._revisions[name], metadata["labels"], metadata["annotations"][VERSION])

    def _possible(self) -> Iterator[tuple[str, Any]]:
        names = {name for kind, name in self.objects if kind == "Deployment"}
        for pod in self.pods:
            if pod.owner not in names:
                yield "remove", pod
            elif not pod.ready and pod.version not in self.broken:
                yield "ready", pod
        for name in sorted(names):
            yield from self._rolled(name, self.objects["Deployment", name]["spec"])

    def _rolled(self, name: str, spec: Object) -> Iterator[tuple[str, Any]]:
        mine, wanted = self.of(name), spec["replicas"]
        new = [pod for pod in mine if pod.revision == self._revisions[name]]
        old = [pod for pod in mine if pod.revision != self._revisions[name]]
        if len(new) < wanted and len(mine) < wanted + 1 and (old or len(mine) < wanted):
            yield "make", name
        spare = sum(pod.ready for pod in mine) > wanted
        for pod in old or (new if len(new) > wanted else []):
            if spare or not pod.ready:
                yield "remove", pod
        # Those that are too many go at once when there are too many of the new ones.
        if wanted == 0:
            yield from (("remove", pod) for pod in mine)
