"""
A cluster of 1.20, for what newer ones do not have any more.

A small API server of the test's own stands in front of the real cluster. It adds the API versions that were
removed since, takes away those that came later, and hands everything else on. Objects are the real cluster's;
who wrote them in an old version, and how often that was asked for, the stand-in remembers by itself, as API
servers do.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from tests.support.cluster import kubeconfig_of

from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.kubernetes.client import NamespaceClient

VERSION = "v1.20.4"
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class _Kind(NamedTuple):
    """A kind of a removed API version. :param now: where the real cluster has it, empty for nowhere"""

    name: str
    now: str
    removed: str


_REMOVED = {
    "extensions/v1beta1": {"ingresses": _Kind("Ingress", "networking.k8s.io/v1", "1.22")},
    "networking.k8s.io/v1beta1": {"ingresses": _Kind("Ingress", "networking.k8s.io/v1", "1.22")},
    "batch/v1beta1": {"cronjobs": _Kind("CronJob", "batch/v1", "1.25")},
    "policy/v1beta1": {
        "poddisruptionbudgets": _Kind("PodDisruptionBudget", "policy/v1", "1.25"),
        "podsecuritypolicies": _Kind("PodSecurityPolicy", "", "1.25"),
    },
}
# 1.21 brought these: whole versions, or some of their resources.
_LATER: dict[str, tuple[str, ...]] = {"batch/v1": ("cronjobs",), "policy/v1": (), "discovery.k8s.io/v1": ()}
_PATH = re.compile(
    r"/apis/(?P<version>[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?(?:/(?P<resource>[^/]+))?"
    r"(?:/(?P<name>[^/]+))?"
)


class _Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes

    @classmethod
    def of(cls, content: Any, status: int = 200) -> _Answer:
        return cls(status, "application/json", json.dumps(content).encode())


_NO_SUCH_PATH = _Answer(404, "text/plain", b"404 page not found\n")


class OlderApiServer(ThreadingHTTPServer):
    """:param client: of the real cluster"""

    daemon_threads = True

    def __init__(self, client: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._client = client
        # By resource, namespace, name and manager.
        self._written: dict[tuple[str, str, str, str], str] = {}
        self._asked: set[tuple[str, str]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> _Answer:
        """Return the answer to a request."""
        path = urlsplit(target).path
        if path == "/version":
            return _Answer.of({"major": "1", "minor": "20", "gitVersion": VERSION})
        if path == "/metrics":
            found = self._real(method, target, headers, body)
            return found._replace(body=found.body + self._counts()) if found.status == 200 else found
        match = _PATH.fullmatch(path)
        if match is None:
            return self._real(method, target, headers, body)
        version, resource = match["version"], match["resource"]
        if _is_later(version, resource):
            return _NO_SUCH_PATH
        if resource is None:
            return self._discovery(version, target, headers)
        kind = _REMOVED.get(version, {}).get(resource)
        if kind is not None:
            self._asked.add((version, resource))
            return self._of_removed(method, target, headers, body, match, kind)
        return self._remembering(self._real(method, target, headers, body), resource)

    def _of_removed(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes,
        match: re.Match[str],
        kind: _Kind,
    ) -> _Answer:
        """Answer in an old version what the real cluster says in a newer one."""
        version, resource = match["version"], match["resource"]
        if not kind.now:
            return _Answer.of({"kind": f"{kind.name}List", "metadata": {}, "items": []})
        given = json.loads(body) if body else None
        if given is not None:
            manager = parse_qs(urlsplit(target).query).get("fieldManager", [""])[0]
            name = match["name"] or given["metadata"]["name"]
            self._written[resource, match["namespace"] or "", name, manager] = version
            body = json.dumps(_newer(given, kind)).encode()
        real = self._real(method, target.replace(f"/apis/{version}/", f"/apis/{kind.now}/"), headers, body)
        return self._remembering(real, resource, version)

    def _discovery(self, version: str, target: str, headers: dict[str, str]) -> _Answer:
        added = [
            {"name": name, "kind": kind.name, "namespaced": bool(kind.now), "verbs": _VERBS}
            for name, kind in _REMOVED.get(version, {}).items()
        ]
        real = self._real("GET", target, headers, b"")
        if real.status != 200:
            content = {"kind": "APIResourceList", "groupVersion": version, "resources": added}
            return _Answer.of(content) if added else real
        content = json.loads(real.body)
        later = _LATER.get(version, ())
        kept = [one for one in content["resources"] if one["name"].partition("/")[0] not in later]
        return _Answer.of({**content, "resources": kept + added})

    def _remembering(self, answer: _Answer, resource: str, version: str | None = None) -> _Answer:
        """Return an answer with the managers of its objects as API servers of then note them."""
        if answer.status >= 300:
            return answer
        content = json.loads(answer.body)
        for one in content.get("items") or [content]:
            metadata = one.get("metadata") or {}
            for entry in metadata.get("managedFields") or ():
                key = (resource, metadata.get("namespace", ""), metadata["name"], entry.get("manager", ""))
                entry["apiVersion"] = self._written.get(key, entry["apiVersion"])
        if version is not None and "apiVersion" in content:
            content["apiVersion"] = version
        return _Answer.of(content, answer.status)

    def _counts(self) -> bytes:
        lines = []
        for version, resource in sorted(self._asked):
            group, _, name = version.partition("/")
            removed = _REMOVED[version][resource].removed
            lines.append(
                f'apiserver_requested_deprecated_apis{{group="{group}",removed_release="{removed}",'
                f'resource="{resource}",subresource="",version="{name}"}} 1\n'
            )
        return "".join(lines).encode()

    def _real(self, method: str, target: str, headers: dict[str, str], body: bytes) -> _Answer:
        answer = self._client.rest_client.pool_manager.request(
            method, f"{self._client.configuration.host}{target}", headers=headers, body=body or None
        )
        return _Answer(answer.status, answer.headers.get("Content-Type", "text/plain"), answer.data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OlderApiServer

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept = ("accept", "content-type", "impersonate-user")
        headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
        answer = self.server.answer(self.command, self.path, headers, body)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass

    def log_message(self, *args: Any) -> None:
        pass


def _is_later(version: str, resource: str | None) -> bool:
    later = _LATER.get(version)
    return later is not None and (later == () or resource in later)


def _newer(obj: dict[str, Any], kind: _Kind) -> dict[str, Any]:
    """Return an object as the version has it that came after."""
    spec = dict(obj.get("spec") or {})
    if kind.name == "Ingress" and (backend := spec.pop("backend", None)):
        service = {"name": backend["serviceName"], "port": {"number": backend["servicePort"]}}
        spec["defaultBackend"] = {"service": service}
    return {**obj, "apiVersion": kind.now, "spec": spec}


@pytest.fixture
def older_cluster(
    cluster_client: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NamespaceClient]:
    """The test's namespace on a cluster of 1.20, which ``KUBECONFIG`` names as well."""
    server = OlderApiServer(cluster_client)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain = {"certificate-authority-data": None}
    config = tmp_path / "older-cluster"
    config.write_text(yaml.safe_dump(kubeconfig_of(cluster_client, {}, server=server.url, **plain)))
    monkeypatch.setenv("KUBECONFIG", str(config))
    yield NamespaceClient(lambda: kubernetes_client(None, None), namespace, "web in production")
    server.shutdown()
    server.server_close()
