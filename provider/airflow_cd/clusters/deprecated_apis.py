"""Finds uses of API versions that the next Kubernetes removes: by clients, objects and manifests."""

from __future__ import annotations

import json
import logging
import zlib
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from airflow_cd.exceptions import TargetError
from airflow_cd.kubernetes.client import NamespaceApi
from airflow_cd.kubernetes.objects import PREFIX
from airflow_cd.kubernetes.removed_apis import METRIC, REMOVALS, Removal, removal_of, requested

log = logging.getLogger(__name__)

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Parts of Kubernetes, which are replaced with the cluster.
_OWN = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")
_OWN_BEGIN = ("cloud-controller-manager", "api-priority-and-fairness-")
# They are many, and are gone within the hour.
_NOT_LISTED = ("events",)
_PAGE = 500
# The origin of uses in the manifests of a release.
_MOST_BYTES = 64 * 1024 * 1024


class Use(NamedTuple):
    """
    A use of an API version that is about to go.

    :param what: kind or resource, and the object where there is one: ``Ingress shop/web``
    :param who: where it was found: an object's managers, the API server's count, a release's manifests
    """

    minor: int
    api_version: str
    what: str
    who: str
    instead: str
    source: str


class DeprecatedApiScanner:
    """
    :param api: of the cluster, of any namespace
    :param server: minor version of the cluster
    :param until: the minor version in question
    """

    def __init__(self, api: NamespaceApi, server: int, until: int) -> None:
        self._api, self._until = api, until
        self._removals = tuple(one for one in REMOVALS if server < one.minor <= until)
        self._served: dict[str, frozenset[str]] = {}

    def uses(self) -> list[Use]:
        """
        Return all uses that are found, and say in the log what could not be looked at.

        :raises TargetError: the cluster does not answer
        """
        # Resources that have no newer version here are listed by the old one, which the server counts.
        ours = {(one.api_version, one.resource) for one in self._removals if self._path(one)[1]}
        found = [*self._requested(ours), *self._objects(), *self._manifests()]
        return sorted(set(found))

    def _requested(self, ours: set[tuple[str, str]]) -> Iterator[Use]:
        who = "an API server's clients since it started, parts of Kubernetes among them"
        for one in requested(self._metrics(), self._until):
            if (one.api_version, one.resource) in ours:
                continue
            known = next(
                (r for r in self._removals if r[1] == one.api_version and r.resource == one.resource), None
            )
            yield Use(
                one.minor,
                one.api_version,
                one.resource,
                who,
                known.instead if known else "",
                known.source if known else METRIC,
            )

    def _metrics(self) -> str:
        with suppress(TargetError), self._api.reported("/metrics"):
            answer = self._api.client.call_api(
                "/metrics",
                "GET",
                header_params={"Accept": "text/plain"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
            )
            try:
                # There are tens of megabytes of others.
                return "\n".join(line.decode() for line in answer if line.startswith(METRIC.encode()))
            finally:
                answer.release_conn()
        log.warning("/metrics of the API server cannot be read: what clients ask it for is not known")
        return ""

    def _objects(self) -> Iterator[Use]:
        by_path: dict[str, list[Removal]] = {}
        for removal in self._removals:
            path, _ = self._path(removal)
            if path:
                by_path.setdefault(path, []).append(removal)
        for path, removals in by_path.items():
            for metadata in self._listed(path):
                for removal in removals:
                    yield from _uses_of(removal, metadata)

    def _path(self, removal: Removal) -> tuple[str, bool]:
        """Return where its objects are listed, empty for nowhere; and whether by the version that goes."""
        if removal.resource in _NOT_LISTED:
            return "", False
        for api_version in filter(None, (removal.instead, removal.api_version)):
            if removal.resource in self._resources(api_version):
                return f"/apis/{api_version}/{removal.resource}", api_version == removal.api_version
        return "", False

    def _resources(self, api_version: str) -> frozenset[str]:
        """Return which resources of an API version can be listed."""
        from kubernetes.client import ApiException

        if api_version not in self._served:
            with self._api.reported(api_version):
                try:
                    found = self._api.request("GET", f"/apis/{api_version}")["resources"]
                except ApiException as error:
                    if error.status != 404:
                        raise
                    found = []
            self._served[api_version] = frozenset(one["name"] for one in found if "list" in one["verbs"])
        return self._served[api_version]

    def _listed(self, path: str) -> Iterator[Mapping[str, Any]]:
        """Yield the metadata of all objects, without their content."""
        query = [("limit", str(_PAGE))]
        while query:
            with self._api.reported(path):
                page = self._api.client.call_api(
                    path,
                    "GET",
                    query_params=query,
                    header_params={"Accept": _METADATA},
                    response_types_map={200: "object"},
                    auth_settings=["BearerToken"],
                    _return_http_data_only=True,
                )
            yield from (one["metadata"] for one in page["items"] or ())
            more = (page.get("metadata") or {}).get("continue")
            query = [("limit", str(_PAGE)), ("continue", more)] if more else []

    def _manifests(self) -> Iterator[Use]:
        with self._api.reported("ConfigMaps"):
            selector = {"labelSelector": f"{PREFIX}holds=objects"}
            found = self._api.request("GET", "/api/v1/configmaps", query=selector)
        for config_map in found["items"]:
            metadata = config_map["metadata"]
            for obj in _manifests_in(config_map):
                removal = removal_of(str(obj.get("apiVersion")), str(obj.get("kind")), self._until)
                if removal is not None:
                    name = f"{removal.kind} {metadata['namespace']}/{(obj.get('metadata') or {}).get('name')}"
                    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
                    release = str(notes.get(f"{PREFIX}digest"))[:19]
                    who = f"release {release} of {labels.get(f'{PREFIX}service')}"
                    yield _use(removal, name, who)


def _uses_of(removal: Removal, metadata: Mapping[str, Any]) -> Iterator[Use]:
    where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    what = f"{removal.kind} {where}{metadata['name']}"
    if not removal.instead:
        yield _use(removal, what, "the object itself, which goes with its API")
    managers = [
        f"{one.get('manager')}, last on {str(one.get('time'))[:10]}"
        for one in metadata.get("managedFields") or ()
        if one.get("apiVersion") == removal.api_version and not _is_own(str(one.get("manager")))
    ]
    for manager in managers:
        yield _use(removal, what, manager)
    # Objects of before 1.18 may have no managers; what kubectl left is there in any case.
    applied = _json((metadata.get("annotations") or {}).get(_APPLIED))
    if not managers and isinstance(applied, dict) and applied.get("apiVersion") == removal.api_version:
        yield _use(removal, what, "kubectl apply")


def _use(removal: Removal, what: str, who: str) -> Use:
    return Use(removal.minor, removal.api_version, what, who, removal.instead, removal.source)


def _is_own(manager: str) -> bool:
    return manager in _OWN or manager.startswith(_OWN_BEGIN)


def _manifests_in(config_map: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    try:
        packed = b64decode((config_map.get("binaryData") or {})["objects"])
        found = _json(zlib.decompressobj(wbits=31).decompress(packed, _MOST_BYTES))
    except (KeyError, ValueError, zlib.error):
        return ()
    return [one for one in found if isinstance(one, dict)] if isinstance(found, Sequence) else ()


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
