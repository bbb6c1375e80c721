"""The Kubernetes objects of a release: read from the source, checked, and pinned to the release's image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_cd.artifacts.kustomize import kustomized
from airflow_cd.artifacts.kustomize_reach import kustomization_of
from airflow_cd.artifacts.manifest_documents import MAX_BYTES, Found, documents
from airflow_cd.artifacts.manifest_objects import Object, objects_in
from airflow_cd.artifacts.manifest_paths import inside, read, relative
from airflow_cd.artifacts.pinning import pin
from airflow_cd.exceptions import ManifestError

_SUFFIXES = (".yaml", ".yml", ".json")


def render(tree: Path, path: str, *, image: str, digest: str, timeout: float = 60) -> list[Object]:
    """
    Return the objects of one environment.

    :param tree: the workspace that was built
    :param path: in the tree: a file; a folder, of which all YAML and JSON files count, those of folders in it
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
