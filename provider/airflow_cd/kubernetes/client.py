"""The objects of one namespace of a Kubernetes cluster: discovered, applied, read, compared and deleted."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

import yaml

from airflow_cd.exceptions import (
    AccessDeniedError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
    TargetError,
)
from airflow_cd.kubernetes.errors import is_absent, is_secret, is_unknown_kind, translate_api_error
from airflow_cd.kubernetes.objects import FENCE, PREFIX, Reference, reference_of
from airflow_cd.kubernetes.removed_apis import minor_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

# What most services consist of, so that the cluster need not be asked. A released version never changes
# these; that the cluster has no such kind is said by the request itself.
_KNOWN = {
    "v1": {
        "ConfigMap": "configmaps",
        "Event": "events",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {
        "DaemonSet": "daemonsets",
        "Deployment": "deployments",
        "ReplicaSet": "replicasets",
        "StatefulSet": "statefulsets",
    },
    "autoscaling/v1": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "coordination.k8s.io/v1": {"Lease": "leases"},
    "discovery.k8s.io/v1": {"EndpointSlice": "endpointslices"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
}


class Resource(NamedTuple):
    """How the API calls a kind, and whether its objects are in namespaces."""

    plural: str
    namespaced: bool


class Kinds:
    """
    Asks the cluster once per group and version, and only for kinds that not every cluster has.

    :param discover: returns what the API has at a path, ``None`` when nothing
    :param where: names the service and its place, for errors
    """

    def __init__(self, discover: Callable[[str], dict[str, Any] | None], where: str) -> None:
        self._discover, self._where = discover, where
        self._found: dict[str, dict[str, Resource]] = {}

    def path(self, api_version: str, kind: str, namespace: str, name: str | None = None) -> str:
        """
        Return the path of all objects of a kind in a namespace, or of one of them.

        :raises ManifestError: the cluster has no such kind, or its objects are in no namespace
        """
        resource = self._resource(api_version, kind)
        if not resource.namespaced:
            raise ManifestError(
                f"{self._where}: {kind}/{name} is cluster-scoped; such objects "
                "are not deployed with a service. Remove it from the manifests, and let an administrator of "
                "the cluster apply it."
            )
        path = f"{_root(api_version)}/namespaces/{quote(namespace, safe='')}/{resource.plural}"
        return path if name is None else f"{path}/{quote(name, safe='')}"

    def _resource(self, api_version: str, kind: str) -> Resource:
        known = _KNOWN.get(api_version, {}).get(kind)
        if known is not None:
            return Resource(known, namespaced=True)
        found = self._found.get(api_version, {}).get(kind)
        if found is None:
            self._found[api_version] = self._ask(api_version)
            found = self._found[api_version].get(kind)
        if found is None:
            raise unknown_kind(self._where, api_version, kind)
        return found

    def _ask(self, api_version: str) -> dict[str, Resource]:
        answer = self._discover(_root(api_version)) or {}
        return {
            one["kind"]: Resource(one["name"], one["namespaced"])
            for one in answer.get("resources", ())
            if "/" not in one["name"]  # a part of another, such as ``deployments/scale``
        }


def unknown_kind(where: str, api_version: str, kind: str) -> ManifestError:
    """Return the error that says that a cluster does not know a kind."""
    return ManifestError(
        f"{where}: the cluster has no kind {kind} of {api_version}: install its CustomResourceDefinition, or "
        "write the apiVersion that this cluster has (`kubectl api-resources` lists them)"
    )


def _root(api_version: str) -> str:
    parts = "/".join(quote(part, safe="") for part in api_version.split("/"))
    return f"/apis/{parts}" if "/" in api_version else f"/api/{parts}"


MERGE = "application/merge-patch+json"
_JSON = "application/json"


class NamespaceApi:
    """
    Connects when it is first asked something.

    :param client: returns a client of the cluster, which tries again by itself what may be
    :param where: names the service and its place, for errors
    :param field_manager: as who fields are set
    """

    def __init__(
        self,
        client: Callable[[], ApiClient],
        namespace: str,
        where: str,
        field_manager: str = "airflow-cd",
    ) -> None:
        self._connect, self.namespace, self.where = client, namespace, where
        self._manager = field_manager
        self._kinds = Kinds(self._discovered, where)

    @cached_property
    def client(self) -> ApiClient:
        """
        The client of the cluster.

        :raises ClusterError: it cannot be reached as configured
        """
        return self._connect()

    @cached_property
    def minor(self) -> int:
        """
        The minor version of the cluster: 20 of 1.20; 0 when it does not say.

        :raises TargetError: the cluster does not answer
        """
        with self.reported("/version"):
            found = self.request("GET", "/version")
        # Its key ``minor`` may be ``20+``, or empty.
        return minor_of(str(found.get("gitVersion"))) or 0

    @contextmanager
    def reported(self, what: str | None = None) -> Iterator[None]:
        """
        Say of the API's errors what they mean. Those of ours are let through.

        :param what: the object in question
        :raises AccessDeniedError: the cluster's roles forbid it; names the missing rule
        :raises FieldConflictError: another manager owns fields that were to be set; names them
        :raises DeployConflictError: the object is not any more what it was when it was read
        :raises ManifestError: the object is not a valid one
        :raises TargetError: the cluster does not answer, or fails, or there is no such namespace
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            problem = translate_api_error(error, self.where, self.namespace, what)
            raise problem from (None if is_secret(what) else error)
        except (HTTPError, ConnectionError, TimeoutError) as error:
            raise TargetError(f"{self.where}: the cluster does not answer: {error}") from error

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """
        Return the API's answer to one request, whatever it is about.

        :raises kubernetes.client.ApiException: it is a refusal
        """
        return self._exchange(method, path, body, content_type, query, _return_http_data_only=True)

    def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        content_type: str,
        query: Mapping[str, str] | None,
        **options: bool,
    ) -> Any:
        return self.client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            response_types_map=dict.fromkeys((200, 201, 202), "object"),
            auth_settings=["BearerToken"],
            **options,
        )

    def _of_one(
        self,
        method: str,
        reference: Reference,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """Return the answer to a request about one object, ``None`` when there is none."""
        from kubernetes.client import ApiException

        with self._about(reference):
            path = self._path(reference)
            try:
                found: dict[str, Any] = self.request(method, path, body, content_type, query)
                return found
            except ApiException as error:
                if is_absent(error, reference.name):
                    return None
                raise

    def _path(self, reference: Reference) -> str:
        return self._kinds.path(reference.api_version, reference.kind, self.namespace, reference.name)

    @contextmanager
    def _about(self, reference: Reference) -> Iterator[None]:
        """
        Say what an error is about.

        :raises ManifestError: the cluster has no such kind, among others
        """
        from kubernetes.client import ApiException

        with self.reported(reference.described):
            try:
                yield
            except ApiException as error:
                if is_unknown_kind(error):
                    raise unknown_kind(self.where, reference.api_version, reference.kind) from error
                raise

    def _discovered(self, path: str) -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        try:
            found: dict[str, Any] = self.request("GET", path)
            return found
        except ApiException as error:
            if error.status == 404:
                return None
            raise


# Kept by the server, or by kubectl: they say nothing about what anybody wants.
_SERVERS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_KUBECTLS = "kubectl.kubernetes.io/last-applied-configuration"
NEW = "new"


class FieldDifference(NamedTuple):
    """
    One object that an application of a release would change.

    :param text: unified diff of YAML, from what there is to what would be; ``new`` for an object that there
        is not. Values of secrets are not in it.
    """

    reference: Reference
    text: str


def text_of(live: Mapping[str, Any], planned: Mapping[str, Any], name: str) -> str:
    """
    Return how two states of an object differ, empty when they do not.

    :param name: of the object
    """
    before, after = _normalised(live), _normalised(planned)
    if live.get("kind") == "Secret":
        _mask(before, after)
    lines = difflib.unified_diff(
        _yaml(before), _yaml(after), f"cluster/{name}", f"release/{name}", lineterm=""
    )
    return "\n".join(lines)


def _normalised(obj: Mapping[str, Any]) -> dict[str, Any]:
    kept = deepcopy({name: value for name, value in obj.items() if name != "status"})
    metadata = kept.get("metadata") or {}
    for name in _SERVERS:
        metadata.pop(name, None)
    _strip_annotations(metadata)
    labels = metadata.pop("labels", None) or {}
    labels.pop(FENCE, None)
    if labels:
        metadata["labels"] = labels
    spec = kept.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    if isinstance(template, dict):
        _strip_annotations(template.get("metadata") or {})
    return kept


def _strip_annotations(metadata: dict[str, Any]) -> None:
    """Take what changes with every release, whatever that changes, out of an object's metadata."""
    annotations = metadata.pop("annotations", None) or {}
    kept = {
        name: value
        for name, value in annotations.items()
        if name != _KUBECTLS and not name.startswith(PREFIX)
    }
    if kept:
        metadata["annotations"] = kept


def _mask(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Put into the place of values only whether they differ."""
    for field in ("data", "stringData"):
        old, new = before.get(field) or {}, after.get(field) or {}
        same = {name for name in old if old[name] == new.get(name)}
        for values, side in ((old, "before"), (new, "after")):
            for name in values:
                values[name] = "(masked)" if name in same else f"(masked, {side})"


def _yaml(obj: dict[str, Any]) -> list[str]:
    return yaml.safe_dump(obj, default_flow_style=False, width=10**6).splitlines()


# The class has a method ``list``, which its annotations would name.
Objects = list[dict[str, Any]]
Differences = list[FieldDifference]

_APPLY = "application/apply-patch+yaml"
_CREATED = 201
_TRIES = 10
# Of objects that were read from a cluster, which these values would tie to what it was then.
_READ = ("managedFields", "resourceVersion", "uid")


class NamespaceClient(NamespaceApi):
    """
    Each object costs one request to apply, one to read, and two to compare or delete.

    What kinds there are is asked once per group and version, and only for kinds that not every cluster has.
    """

    def apply(
        self, objects: Sequence[Mapping[str, Any]], *, take: bool = False, dry_run: bool = False
    ) -> Objects:
        """
        Set objects' fields, one object after the other, and return what they are now.

        Fields that are not given any more, and that nobody else manages, are removed.

        :param take: fields that another manager owns are taken over
        :param dry_run: nothing is changed
        :raises ManifestError: one of them cannot be deployed as it is; nothing was changed where that can
            be computed without the cluster
        """
        ready = [self._checked(obj) for obj in objects]
        return [self._apply(obj, take, dry_run) for obj in ready]

    def apply_seen(
        self, obj: Mapping[str, Any], seen: Mapping[str, Any] | None, *, take: bool = False
    ) -> tuple[dict[str, Any], bool]:
        """
        Set one object's fields, if it is still what was seen; return what it is now, and whether it is new.

        :param seen: the object as the cluster had it. What had none can be made by another client meanwhile,
            and is changed then: the API knows no condition for that.
        :raises DeployConflictError: it was changed or removed since
        :raises ManifestError: it cannot be deployed as it is
        """
        obj = self._checked(obj)
        if seen is not None:
            version = {name: seen["metadata"][name] for name in ("uid", "resourceVersion")}
            obj = {**obj, "metadata": {**obj["metadata"], **version}}
        query = {"fieldManager": self._manager, "force": str(take).lower()}
        reference = reference_of(obj)
        with self._about(reference):
            applied, status, _ = self._exchange("PATCH", self._path(reference), obj, _APPLY, query)
            return applied, status == _CREATED

    def validate(self, objects: Sequence[Mapping[str, Any]], take: bool = False) -> None:
        """
        Have the cluster check objects, and change nothing.

        :raises ManifestError: some cannot be applied; names all problems
        :raises FieldConflictError: that is what all problems are
        :raises AccessDeniedError: that is what all problems are
        """
        problems = []
        for obj in objects:
            try:
                self._apply(self._checked(obj), take, dry_run=True)
            except (ManifestError, FieldConflictError, AccessDeniedError) as problem:
                problems.append(problem)
        if not problems:
            return
        found = {type(problem) for problem in problems}
        kind = found.pop() if len(found) == 1 else ManifestError
        raise kind("\n".join(dict.fromkeys(str(problem) for problem in problems))) from problems[0]

    def get(self, api_version: str, kind: str, name: str) -> dict[str, Any] | None:
        """
        Return an object, if there is one.

        :raises ManifestError: there is no such kind
        """
        return self._of_one("GET", Reference(api_version=api_version, kind=kind, name=name))

    def list(self, api_version: str, kind: str, labels: Mapping[str, str]) -> Objects:
        """
        Return all objects of a kind with these labels.

        :raises ManifestError: there is no such kind
        """
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        with self._about(Reference(api_version=api_version, kind=kind, name="*")):
            path = self._kinds.path(api_version, kind, self.namespace)
            found = self.request("GET", path, query={"labelSelector": selector})
        return [{**one, "apiVersion": api_version, "kind": kind} for one in found["items"]]

    def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """
        Make an object that there is not.

        :raises DeployConflictError: there is one
        """
        obj = self._checked(obj)
        reference = reference_of(obj)
        with self._about(reference):
            path = self._kinds.path(reference.api_version, reference.kind, self.namespace)
            made: dict[str, Any] = self.request("POST", path, obj, query={"fieldManager": self._manager})
            return made

    def merge(self, reference: Reference, patch: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Change the fields that are given, and return what the object is now, ``None`` when there is none.

        :param patch: a JSON merge patch; with a ``resourceVersion`` in its metadata, the object must be of
            that version
        :raises DeployConflictError: it is of another version
        """
        return self._of_one("PATCH", reference, patch, MERGE, {"fieldManager": self._manager})

    def delete(
        self,
        reference: Reference,
        labels: Mapping[str, str],
        *,
        propagation: Literal["Background", "Foreground"] = "Background",
    ) -> bool:
        """
        Delete an object, and return whether there was one to delete.

        :param labels: that it must have, or it is left alone; so it is when it has another uid
        :param propagation: whether the object goes at once and then what it owns, or after it. A release
            that brings the object back meanwhile would change one that is about to go, hence the default.
        """
        live = self.deletable(reference, labels)
        if live is None:
            return False
        body = {"propagationPolicy": propagation, "preconditions": {"uid": live["metadata"]["uid"]}}
        try:
            return self._of_one("DELETE", reference, body) is not None
        except DeployConflictError:  # it was removed, and another client created it again
            return False

    def deletable(self, reference: Reference, labels: Mapping[str, str]) -> dict[str, Any] | None:
        """Return an object as it is, ``None`` when there is none, or when it is another owner's."""
        try:
            live = self.get(reference.api_version, reference.kind, reference.name)
        except ManifestError:  # its objects were removed with the kind
            return None
        if live is None:
            return None
        metadata = live["metadata"]
        had = metadata.get("labels") or {}
        if reference.uid not in (None, metadata["uid"]) or any(had.get(k) != v for k, v in labels.items()):
            log.warning("%s: %s is another owner's and is not deleted", self.where, reference.described)
            return None
        return live

    def delete_seen(self, seen: Mapping[str, Any]) -> bool:
        """
        Delete an object that is still what was seen, and return whether there was one.

        :raises DeployConflictError: it was changed since
        """
        expected = {name: seen["metadata"][name] for name in ("uid", "resourceVersion")}
        body = {"propagationPolicy": "Background", "preconditions": expected}
        return self._of_one("DELETE", reference_of(seen), body) is not None

    def diff(self, objects: Sequence[Mapping[str, Any]], *, take: bool = True) -> Differences:
        """Return what applying objects would change, by asking the cluster; nothing is changed."""
        return [one for obj in objects if (one := self._difference(self._checked(obj), take)).text]

    def _apply(self, obj: dict[str, Any], take: bool, dry_run: bool) -> dict[str, Any]:
        query = {"fieldManager": self._manager, "force": str(take).lower()}
        if dry_run:
            query["dryRun"] = "All"
        reference = reference_of(obj)
        with self._about(reference):
            applied: dict[str, Any] = self.request("PATCH", self._path(reference), obj, _APPLY, query)
            return applied

    def _difference(self, obj: dict[str, Any], take: bool) -> FieldDifference:
        reference = reference_of(obj)
        for _ in range(_TRIES):
            live = self.get(reference.api_version, reference.kind, reference.name)
            if live is None:
                self._apply(obj, take, dry_run=True)  # the cluster may have something to say against it
                return FieldDifference(reference, NEW)
            # Else what a controller writes in between would be taken for something that the release changes.
            seen = {**obj["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
            with suppress(DeployConflictError):
                planned = self._apply({**obj, "metadata": seen}, take, dry_run=True)
                return FieldDifference(reference_of(live), text_of(live, planned, reference.described))
        raise TargetError(f"{self.where}: {reference.described} changes too often to be compared")

    def _checked(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the object with its namespace.

        :raises ManifestError: it cannot be deployed as it is
        """
        metadata = obj.get("metadata") or {}
        if not (obj.get("apiVersion") and obj.get("kind") and metadata.get("name")):
            raise ManifestError(
                f"{self.where}: an object needs apiVersion, kind and metadata.name, and has "
                f"{obj.get('apiVersion')!r}, {obj.get('kind')!r} and {metadata.get('name')!r}"
            )
        name = reference_of(obj).described
        if metadata.get("namespace") not in (None, self.namespace):
            raise ManifestError(
                f"{self.where}: {name} names the namespace {metadata['namespace']!r}, but the target's is "
                f"{self.namespace!r}; take `metadata.namespace` out of the manifest"
            )
        read = [field for field in _READ if metadata.get(field)] + (["status"] if obj.get("status") else [])
        if read:
            raise ManifestError(
                f"{self.where}: {name} was read from a cluster: take {', '.join(read)} out of the manifest"
            )
        kept = {field: value for field, value in obj.items() if field != "status"}
        return {**kept, "metadata": {**metadata, "namespace": self.namespace}}
