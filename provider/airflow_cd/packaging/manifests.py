"""The Kubernetes objects of a release: read from the source, checked, and pinned to the release's image."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.text import printable
from airflow_cd.packaging.kustomize import kustomization_of, kustomized
from airflow_cd.packaging.manifest_files import MAX_BYTES, Found, documents, inside, read, relative

Object = dict[str, Any]

_API_VERSION = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[a-z0-9]+")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
# Roles may have colons; nothing may have what means something else in the path of a request.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9:._-]{0,251}[A-Za-z0-9])?")

# What the cluster adds to an object, as in an export by `kubectl get`.
_SAID_BY_CLUSTER = (
    "managedFields",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
)

# Kinds whose objects belong to no namespace, by group. The target, which asks the cluster, refuses others.
_CLUSTER_WIDE = {
    "": ("Namespace", "Node", "PersistentVolume"),
    "admissionregistration.k8s.io": (
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    ),
    "apiextensions.k8s.io": ("CustomResourceDefinition",),
    "apiregistration.k8s.io": ("APIService",),
    "certificates.k8s.io": ("CertificateSigningRequest",),
    "flowcontrol.apiserver.k8s.io": ("FlowSchema", "PriorityLevelConfiguration"),
    "gateway.networking.k8s.io": ("GatewayClass",),
    "networking.k8s.io": ("IngressClass",),
    "node.k8s.io": ("RuntimeClass",),
    "policy": ("PodSecurityPolicy",),
    "rbac.authorization.k8s.io": ("ClusterRole", "ClusterRoleBinding"),
    "scheduling.k8s.io": ("PriorityClass",),
    "storage.k8s.io": ("CSIDriver", "CSINode", "StorageClass", "VolumeAttachment"),
}


def objects_in(found: Iterable[Found]) -> list[Object]:
    """
    Return the objects of documents, lists taken apart, without what only the cluster says of them.

    :raises ManifestError: one of them is no object, is there twice, or does not belong to a service
    """
    objects: list[Object] = []
    places: dict[tuple[str, str, str], str] = {}
    for where, content in _single(found):
        group, kind, name = identity = _identity(where, content)
        if identity in places:
            raise ManifestError(
                f"{where}: {kind}/{name} is there twice, also in {places[identity]}; remove or rename one"
            )
        places[identity] = where
        _refuse(where, group, kind, name)
        objects.append(_cleaned(content))
    return objects


def _single(found: Iterable[Found]) -> Iterator[Found]:
    for where, content in found:
        if not isinstance(content, dict):
            raise ManifestError(
                f"{where}: a Kubernetes object is a mapping with apiVersion, kind and metadata, and this is "
                f"a {type(content).__name__}; correct it, or keep the file elsewhere"
            )
        if str(content.get("kind")).endswith("List") and "items" in content:
            items = content["items"] or []
            if not isinstance(items, list):
                raise ManifestError(f"{where}: `items` is a {type(items).__name__}, not a list; correct it")
            yield from _single(Found(f"{where}, item {n}", item) for n, item in enumerate(items, start=1))
        else:
            yield Found(where, content)


def _identity(where: str, obj: Object) -> tuple[str, str, str]:
    """Return group, kind and name. Not the version: a cluster has one object under all of them."""
    api_version = _text(where, obj, "apiVersion", _API_VERSION, "such as apps/v1")
    kind = _text(where, obj, "kind", _KIND, "such as Deployment")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise ManifestError(f"{where}: {kind} has no `metadata` with a name (got {metadata!r}); add it")
    if "generateName" in metadata:
        raise ManifestError(
            f"{where}: {kind} has `metadata.generateName` (got {metadata['generateName']!r}), so that each "
            "deployment would make another object; give it a fixed `metadata.name`"
        )
    name = _text(where, metadata, "name", _NAME, "letters, digits, `-` and `.`", of=f"{kind}: metadata.")
    return api_version.rpartition("/")[0], kind, name


def _text(where: str, mapping: Object, key: str, pattern: re.Pattern[str], like: str, of: str = "") -> str:
    value = mapping.get(key)
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    if value is None:
        raise ManifestError(f"{where}: {of}{key} is missing; add it ({like})")
    raise ManifestError(f"{where}: {of}{key} is not one (got {repr(value)[:200]}); write it as {like}")


def _refuse(where: str, group: str, kind: str, name: str) -> None:
    if (group, kind) == ("", "Secret"):
        raise ManifestError(
            f"{where}: Secret/{name} would be kept, readable, in the artifact store with every release. Use "
            "a SealedSecret, an ExternalSecret of an external-secrets operator, or `app.secrets`, which "
            "takes them from Airflow connections"
        )
    if kind not in _CLUSTER_WIDE.get(group, ()):
        return
    remedy = (
        "declare it under `clusters:` (docs/clusters.md)"
        if kind == "Namespace"
        else "let an administrator of the cluster apply it"
    )
    raise ManifestError(
        f"{where}: {kind}/{name} belongs to no namespace but to the whole cluster, and is not deployed with "
        f"a service. Take it out of the manifests, and {remedy}"
    )


def _cleaned(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _SAID_BY_CLUSTER}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


# Where objects say what their pods are like: Deployments, StatefulSets, DaemonSets, Jobs and what resembles
# them (an Argo Rollout, a Knative Service); CronJobs; PodTemplates.
_TEMPLATES = (("spec", "template"), ("spec", "jobTemplate", "spec", "template"), ("template",))
_CONTAINERS = ("initContainers", "containers")
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def pin(objects: Sequence[Object], *, image: str, digest: str, source: str) -> int:
    """
    Write ``image@digest`` into each container of the image, whatever tag or digest it had.

    :param image: the repository, without a tag
    :param source: where the objects are from, for messages
    :return: how many containers that were
    :raises ManifestError: there is none, or what should be a container is not
    """
    wanted, pinned = repository_of(image), 0
    others: set[str] = set()
    for obj in objects:
        for container in _containers_of(obj, source):
            had = container.get("image")
            if isinstance(had, str) and repository_of(had) == wanted:
                container["image"] = f"{image}@{digest}"
                pinned += 1
            elif isinstance(had, str):
                others.add(had)
    if not pinned:
        listed = ", ".join(printable(other, 200) for other in sorted(others)[:10]) or "none at all"
        raise ManifestError(
            f"{source}: no container has the image {image}, which this service is packaged as; the images "
            f"found are: {listed}. Write `image: {image}` in the manifests (its digest is put there), or "
            "correct `package.image.repository`"
        )
    return pinned


def repository_of(image: str) -> str:
    """
    Return an image's repository with its registry, without tag and digest.

    As engines read it: ``busybox`` is ``docker.io/library/busybox``.
    """
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    first, _, rest = name.partition("/")
    if not rest or not ("." in first or ":" in first or first == "localhost"):
        first, rest = _DOCKER_HUB[0], name
    if first in _DOCKER_HUB:
        return f"{_DOCKER_HUB[0]}/{rest if '/' in rest else f'library/{rest}'}"
    return f"{first}/{rest}"


def _containers_of(obj: Object, source: str) -> Iterator[Object]:
    where = f"{source}: {obj['kind']}/{obj['metadata']['name']}"
    for spec in _pod_specs(obj):
        for key in _CONTAINERS:
            containers = spec.get(key) or []
            if not isinstance(containers, list):
                raise ManifestError(f"{where}: `{key}` is a {type(containers).__name__}; write a list")
            for container in containers:
                if not isinstance(container, dict):
                    raise ManifestError(
                        f"{where}: {repr(container)[:200]} in `{key}` is no container; write a mapping"
                    )
                yield container


def _pod_specs(obj: Object) -> Iterator[Object]:
    if (obj["apiVersion"], obj["kind"]) == ("v1", "Pod") and isinstance(obj.get("spec"), dict):
        yield obj["spec"]
    for path in _TEMPLATES:
        found: Any = obj
        for step in (*path, "spec"):
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict):
            yield found


_SUFFIXES = (".yaml", ".yml", ".json")


def render(tree: Path, path: str, *, image: str, digest: str, timeout: float = 60) -> list[Object]:
    """
    Return the objects of one environment.

    :param tree: the workspace that was built
    :param path: in the tree: a file; a folder, with all YAML and JSON files in it, those of folders in it
        not; or a folder with a kustomization
    :param image: repository whose containers get the digest
    :param digest: of the release's image
    :param timeout: seconds that kustomize may take
    :raises ManifestError: they cannot be read, or not be deployed with a service; names the file, the
        document, the value, and what to do
    """
    tree = tree.resolve()
    source = inside(tree / path, tree, path)
    found = _found(source, tree, timeout)
    objects: list[Object] = json.loads(canonical(objects_in(found)))  # no two share what an alias stood for
    if not objects:
        raise ManifestError(f"{path}: there is no object in it; correct `manifests:`, or add them")
    pin(objects, image=image, digest=digest, source=path)
    return objects


def canonical(objects: Sequence[Object]) -> bytes:
    """Return the objects as JSON, the same bytes for the same objects in the same order."""
    return json.dumps(objects, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _found(source: Path, tree: Path, timeout: float) -> list[Found]:
    if not source.is_dir():
        return _plain([source], tree)
    if kustomization_of(source) is not None:
        text = kustomized(source, tree, timeout=timeout)
        return documents(text, f"{relative(source, tree)} as kustomize renders it")
    return _plain(_files(source, tree), tree)


def _files(folder: Path, tree: Path) -> list[Path]:
    files = sorted(one for one in folder.iterdir() if one.suffix in _SUFFIXES)
    if not files:
        raise ManifestError(
            f"{relative(folder, tree)}: there is no {', '.join(_SUFFIXES)} file in this folder; correct "
            "`manifests:`, or add them"
        )
    return files


def _plain(files: Sequence[Path], tree: Path) -> list[Found]:
    """Return the documents of files, which may all together be no larger than one."""
    found: list[Found] = []
    left = MAX_BYTES
    for file in files:
        name = relative(file, tree)
        text = read(inside(file, tree, name), name)
        left -= len(text)
        if left < 0:
            raise ManifestError(f"{name}: the files up to here are larger than {MAX_BYTES} bytes together")
        found += documents(text, name)
    return found


def described(obj: dict[str, Any]) -> str:
    """Return an object's kind and name, for people."""
    return f"{obj['kind']}/{obj['metadata']['name']}"
