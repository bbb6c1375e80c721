"""Renders folders with a kustomization, by the programs that do; nothing is fetched from anywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

from airflow_cd.artifacts.kustomize_reach import check_reach
from airflow_cd.artifacts.manifest_documents import MAX_BYTES
from airflow_cd.artifacts.manifest_paths import relative
from airflow_cd.exceptions import ManifestError
from airflow_cd.model.text import printable
from airflow_cd.processes.environment import clean_environment

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
            raise ManifestError(f"{name}: `{argv[0]}` cannot be started: {error}; install it anew") from error
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
