"""Renders kustomizations with the kustomize program, after checking that they fetch nothing from outside."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.text import printable
from airflow_cd.packaging.manifest_files import MAX_BYTES, documents, inside, read, relative
from airflow_cd.processes.environment import clean_environment

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")

# Keys whose entries are files or folders, and those whose entries are files alone; others hold them deeper.
_FOLDERS = ("resources", "bases", "components", "generators", "transformers", "validators")
_FILES = ("crds", "configurations", "patchesStrategicMerge")
_PLUGINS = ("generators", "transformers", "validators")
_INLINE = (*_PLUGINS, "patchesStrategicMerge")
_NESTED = ("patches", "patchesJson6902", "replacements", "openapi")
_GENERATORS = ("configMapGenerator", "secretGenerator")
_GENERATED_FROM = ("files", "envs", "env")
# The keys by which built-in plugins (``apiVersion: builtin``) refer to files.
_OF_PLUGINS = ("path", "paths", *_GENERATED_FROM)
# How kustomize tells what it has to fetch, and a little more.
_REMOTE = re.compile(r"\s*(git::|gh:|[a-z][a-z0-9+.-]*://|[\w.-]+@|github\.com[:/])", re.IGNORECASE)
_MOST_FOLDERS = 200


def kustomization_of(folder: Path) -> Path | None:
    """Return the file that makes a folder one that kustomize renders, if it is one."""
    found = [folder / name for name in NAMES if (folder / name).exists() or (folder / name).is_symlink()]
    return found[0] if found else None


def check_reach(folder: Path, tree: Path) -> None:
    """
    Go through all kustomizations that this one brings in.

    :raises ManifestError: one refers to what is elsewhere
    """
    seen, ahead = {folder}, [folder]
    while ahead:
        folder = ahead.pop()
        for found in _referred(folder, tree):
            if found.is_dir() and found not in seen:
                seen.add(found)
                ahead.append(found)
        if len(seen) > _MOST_FOLDERS:
            raise ManifestError(
                f"{relative(folder, tree)}: more than {_MOST_FOLDERS} folders are brought in; use fewer"
            )


def _referred(folder: Path, tree: Path) -> Iterator[Path]:
    """Yield what a folder's kustomization brings in, each checked."""
    file = kustomization_of(folder)
    if file is None:
        raise ManifestError(
            f"{relative(folder, tree)}: another kustomization brings this folder in, and it has no "
            f"{NAMES[0]}; add one, or name the files"
        )
    name = relative(file, tree)
    text = read(inside(file, tree, name), name)
    for where, content in documents(text, name):
        if not isinstance(content, dict):
            raise ManifestError(f"{where}: a kustomization is a mapping, not a {type(content).__name__}")
        for key, entry in _entries(content):
            yield _local(folder, tree, entry, f"{where}, `{key}`")
        for key in _PLUGINS:
            for entry in _texts(_values(content, key)):
                _check_plugin(folder, tree, entry, f"{where}, `{key}`")


def _check_plugin(folder: Path, tree: Path, entry: str, where: str) -> None:
    """
    Check the references of a transformer or generator: kustomize would fetch those, too.

    :raises ManifestError: it refers to what is elsewhere, or its references are known only after rendering
    """
    if not _is_inline(entry):
        file = _local(folder, tree, entry, where)
        if file.is_dir():
            raise ManifestError(f"{where}: {entry!r} is a folder; name the files in it, one by one")
        where, entry = relative(file, tree), read(file, relative(file, tree))
    for place, content in documents(entry, where):
        for key, text in _deep(content):
            if key.lower() in _OF_PLUGINS and _REMOTE.match(text.rpartition("=")[2] or text):
                raise _elsewhere(f"{place}, `{key}`", text)


def _deep(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in it, with the key it stands under."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _deep(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _deep(one, key)
    elif isinstance(value, str):
        yield key, value


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key in (*_FOLDERS, *_FILES):
        for one in _texts(_values(content, key)):
            if not (key in _INLINE and _is_inline(one)):
                yield key, one
    for key in _NESTED:
        for mapping in _mappings(_values(content, key)):
            yield from ((key, path) for path in _texts(_values(mapping, "path")))
    for key in _GENERATORS:
        for mapping in _mappings(_values(content, key)):
            for source in _GENERATED_FROM:
                # ``name=path`` gives the file another name.
                yield from ((key, one.partition("=")[2] or one) for one in _texts(_values(mapping, source)))


def _is_inline(entry: str) -> bool:
    """Tell whether an entry is the YAML itself instead of its place."""
    return not _REMOTE.match(entry) and ("\n" in entry.strip() or ": " in entry or entry.startswith("{"))


def _values(content: dict[str, Any], key: str) -> Iterator[Any]:
    """Yield what stands under a key, however it is written: Go takes ``Resources`` for it as well."""
    for name, value in content.items():
        if name.lower() == key.lower():
            yield from value if isinstance(value, list) else [value]


def _texts(values: Iterable[Any]) -> Iterator[str]:
    return (one for one in values if isinstance(one, str))


def _mappings(values: Iterable[Any]) -> Iterator[dict[str, Any]]:
    return (one for one in values if isinstance(one, dict))


def _local(folder: Path, tree: Path, entry: str, where: str) -> Path:
    """
    Return the file or folder of an entry.

    :raises ManifestError: it is none of the tree
    """
    if _REMOTE.match(entry):
        raise _elsewhere(where, entry)
    return inside(folder / entry, tree, f"{where}, {entry!r}")


def _elsewhere(where: str, entry: str) -> ManifestError:
    return ManifestError(
        f"{where}: {entry!r} is somewhere else, and would be fetched while packaging: the same commit "
        "could then give other objects. Copy it into the repository, and name that"
    )


_LONGEST_REASON = 2000


def kustomized(folder: Path, tree: Path, *, timeout: float) -> str:
    """
    Return what kustomize makes of a folder, as YAML.

    :param folder: below ``tree``, both without links in their paths
    :param timeout: seconds
    :raises ManifestError: it refers to what is not in the tree, cannot be rendered, or nothing is there that
        could
    """
    name = relative(folder, tree)
    check_reach(folder, tree)
    environment = _environment()
    argv = _argv(folder, name, environment["PATH"])
    with TemporaryFile() as out, TemporaryFile() as err:
        try:
            ran = subprocess.run(
                argv,
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise ManifestError(
                f"{name}: `{argv[0]}` took longer than {timeout:g} s and was ended; make it smaller"
            ) from error
        except OSError as error:
            raise ManifestError(
                f"{name}: `{argv[0]}` cannot be started: {error}; install it again"
            ) from error
        out.seek(0)
        err.seek(0)
        text = out.read(MAX_BYTES + 1)
        words = err.read(_LONGEST_REASON).decode("utf-8", "replace").split()
        said = printable(" ".join(words), _LONGEST_REASON)
    if ran.returncode != 0:
        raise ManifestError(
            f"{name}: `{' '.join(argv[:2])}` failed: {said or f'exit code {ran.returncode}'}. Correct the "
            "kustomization, or have a newer kubectl on the workers"
        )
    if len(text) > MAX_BYTES:
        raise ManifestError(f"{name}: what kustomize makes of it is larger than {MAX_BYTES} bytes; split it")
    return text.decode("utf-8", "replace")


def _argv(folder: Path, name: str, path: str) -> list[str]:
    if shutil.which("kubectl", path=path):
        return ["kubectl", "kustomize", str(folder)]
    if shutil.which("kustomize", path=path):
        return ["kustomize", "build", str(folder)]
    raise ManifestError(
        f"{name}: a folder with a kustomization needs `kubectl` or `kustomize` on the worker, and neither "
        f"is in {path}; install one, or keep plain YAML files there"
    )


def _environment() -> dict[str, str]:
    """A clean one in which git and HTTP reach nothing, should anything be left to fetch."""
    nowhere = "http://127.0.0.1:9"  # the discard port
    proxies = {name: nowhere for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    return {**clean_environment(), **proxies, "GIT_ALLOW_PROTOCOL": "none", "GIT_TERMINAL_PROMPT": "0"}
