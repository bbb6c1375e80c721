"""Connections of clusters: every form is used, or refused and named; what is denied can be granted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from harness.waiting import wait_until
from tests.support.cluster import allow, deployer, kubeconfig_of

from airflow_cd.exceptions import AccessDeniedError, ClusterError, TargetError
from airflow_cd.hooks import kubernetes as hook
from airflow_cd.hooks.kubernetes import kubernetes_client, kubernetes_watch_client
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.objects import reference_of

READS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}

Connect = Callable[..., str]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes a connection with these extras, and returns its id."""

    def connect(conn_type: str = "kubernetes", **extra: Any) -> str:
        monkeypatch.setenv("AIRFLOW_CONN_K8S", json.dumps({"conn_type": conn_type, "extra": extra}))
        return "k8s"

    return connect


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster is meant but by the connection."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


@pytest.fixture
def kubeconfig(cluster_client: Any, namespace: str) -> dict[str, Any]:
    """Of a user who may read ConfigMaps of the test's namespace."""
    return kubeconfig_of(cluster_client, {"token": deployer(cluster_client, namespace, [READS])})


def written(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def reads(client: Any, namespace: str) -> bool:
    """Return whether a client gets through to the cluster."""
    return NamespaceClient(lambda: client, namespace, "web").get("v1", "ConfigMap", "none") is None


@pytest.mark.parametrize("prefix", ["", "extra__kubernetes__"])
@pytest.mark.parametrize("form", ["text", "object", "path"])
def test_a_connection_reaches_its_cluster(
    connect: Connect,
    nowhere: None,
    kubeconfig: dict[str, Any],
    namespace: str,
    tmp_path: Path,
    form: str,
    prefix: str,
) -> None:
    forms = {
        "text": {"kube_config": json.dumps(kubeconfig)},
        "object": {"kube_config": kubeconfig},
        "path": {"kube_config_path": written(tmp_path / "config", kubeconfig)},
    }
    conn_id = connect(**{f"{prefix}{name}": value for name, value in forms[form].items()})  # type: ignore[attr-defined]
    assert reads(kubernetes_client(conn_id, None), namespace)


async def test_so_do_watches(
    connect: Connect, nowhere: None, kubeconfig: dict[str, Any], namespace: str
) -> None:
    client = await kubernetes_watch_client(connect(kube_config=kubeconfig), None)
    async with client:
        found = await client.call_api(
            f"/api/v1/namespaces/{namespace}/configmaps/none",
            "GET",
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        assert found.status == 404


async def test_so_do_watches_with_a_certificate(cluster_client: Any, namespace: str) -> None:
    async with await kubernetes_watch_client(None, None) as client:
        found = await client.call_api(
            f"/api/v1/namespaces/{namespace}",
            "GET",
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        assert found.status == 200


def test_the_context_is_the_targets_else_the_connections_else_the_files(
    connect: Connect, nowhere: None, kubeconfig: dict[str, Any], namespace: str
) -> None:
    kubeconfig["users"].append({"name": "nobody", "user": {"token": "not-a-token"}})
    kubeconfig["contexts"].append({"name": "other", "context": {"cluster": "c", "user": "nobody"}})
    usual, other = connect(kube_config=kubeconfig), "other"
    assert reads(kubernetes_client(usual, None), namespace)
    with pytest.raises(ClusterError, match="does not accept the credentials"):
        reads(kubernetes_client(usual, other), namespace)
    configured = connect(kube_config=kubeconfig, cluster_context="other")
    with pytest.raises(ClusterError, match="does not accept the credentials"):
        reads(kubernetes_client(configured, None), namespace)
    assert reads(kubernetes_client(configured, "usual"), namespace)
    with pytest.raises(ClusterError, match="connection 'k8s'.*nothing-of-this-name"):
        kubernetes_client(configured, "nothing-of-this-name")


def test_without_a_connection_the_kubeconfig_of_this_moment_is_used(
    monkeypatch: pytest.MonkeyPatch, kubeconfig: dict[str, Any], namespace: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", written(tmp_path / "config", kubeconfig))
    client = kubernetes_client(None, None)
    assert reads(client, namespace)
    with pytest.raises(AccessDeniedError, match="deployer cannot get deployments"):
        NamespaceClient(lambda: client, namespace, "web").get("apps/v1", "Deployment", "none")


@pytest.mark.parametrize("extra", [{"in_cluster": True}, {"in_cluster": "true"}, {}, None])
def test_in_a_pod_its_service_account_is_used(
    monkeypatch: pytest.MonkeyPatch,
    connect: Connect,
    nowhere: None,
    cluster_client: Any,
    kubeconfig: dict[str, Any],
    namespace: str,
    tmp_path: Path,
    extra: dict[str, Any] | None,
) -> None:
    from kubernetes.config import incluster_config

    conn_id = None if extra is None else connect(**extra)
    host, port = cluster_client.configuration.host.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    token = tmp_path / "token"
    token.write_text(kubeconfig["users"][0]["user"]["token"])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", cluster_client.configuration.ssl_ca_cert)
    assert reads(kubernetes_client(conn_id, None), namespace)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"in_cluster": True}, "says in_cluster, but this process runs in no cluster"),
        ({"in_cluster": "perhaps"}, "in_cluster is 'perhaps'; write true or false"),
        ({"kube_config_path": "/nowhere/config"}, "there is no kubeconfig at '/nowhere/config'"),
        ({"kube_config_path": "/a", "kube_config": "{}"}, "says kube_config_path and kube_config"),
        ({"kube_config": "clusters: [}"}, "its kube_config is neither JSON nor YAML"),
        ({"kube_config": "just words"}, "its kube_config is not that of a cluster"),
        ({"kube_config": "{}"}, "its kube_config cannot be used"),
        ({"kube_config": {"current-context": "a", "contexts": "b"}}, "its kube_config cannot be used"),
        ({}, "names none, so KUBECONFIG is used: there is no kubeconfig at"),
    ],
)
def test_a_connection_that_cannot_be_used_is_named(
    connect: Connect, nowhere: None, extra: dict[str, Any], named: str
) -> None:
    with pytest.raises(ClusterError, match=f"connection 'k8s'.*{named}"):
        kubernetes_client(connect(**extra), None)


def test_a_connection_that_is_not_there_or_of_another_kind_is_named(connect: Connect) -> None:
    with pytest.raises(ClusterError, match="there is no connection 'nobody'; add one of type kubernetes"):
        kubernetes_client("nobody", None)
    with pytest.raises(ClusterError, match="connection 'k8s' is of type 'http', not kubernetes"):
        kubernetes_client(connect("http"), None)


def test_a_kubeconfig_that_is_not_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("clusters: [}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(ClusterError, match="the kubeconfig at .*config' cannot be used"):
        kubernetes_client(None, None)


def test_secrets_of_a_connection_are_in_no_error_and_in_no_log(connect: Connect, nowhere: None) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    # None begins as one that another test has masked.
    secrets = [f"{uuid4().hex}-{what}" for what in ("token", "password", "key", "value")]
    user = {
        "token": secrets[0],
        "password": secrets[1],
        "client-key-data": secrets[2],
        "exec": {"command": "true", "env": [{"name": "A", "value": secrets[3]}]},
    }
    broken = f"users: [{{token: {secrets[0]}}}"
    with pytest.raises(ClusterError) as refused:
        kubernetes_client(connect(kube_config=broken), None)
    assert secrets[0] not in str(refused.value) and refused.value.__suppress_context__
    with pytest.raises(ClusterError):
        kubernetes_client(connect(kube_config={"users": [{"name": "u", "user": user}]}), None)
    assert redact(f"it is {' and '.join(secrets)}") == "it is *** and *** and *** and ***"


def test_the_token_of_a_file_is_in_no_log(
    connect: Connect, nowhere: None, kubeconfig: dict[str, Any], tmp_path: Path
) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    token = kubeconfig["users"][0]["user"].pop("token")
    (tmp_path / "token").write_text(token)
    kubeconfig["users"][0]["user"]["tokenFile"] = str(tmp_path / "token")
    kubernetes_client(connect(kube_config_path=written(tmp_path / "config", kubeconfig)), None)
    assert token not in str(redact(f"Authorization: {token}"))


def test_certificates_are_checked_unless_the_connection_says_otherwise(
    connect: Connect, nowhere: None, cluster_client: Any, kubeconfig: dict[str, Any], namespace: str
) -> None:
    del kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
    with pytest.raises(TargetError, match="(?i)certificate"):
        reads(kubernetes_client(connect(kube_config=kubeconfig), None), namespace)
    unchecked = connect(kube_config=kubeconfig, disable_verify_ssl="true")
    with pytest.warns(Warning, match="Unverified HTTPS"):
        assert reads(kubernetes_client(unchecked, None), namespace)
    # That is so for this connection only.
    checked = connect(kube_config=kubeconfig)
    assert kubernetes_client(checked, None).configuration.verify_ssl


def test_who_does_as_a_denial_says_is_let_in(
    cluster_client: Any, connect: Connect, nowhere: None, namespace: str
) -> None:
    token = deployer(cluster_client, namespace, rules := [READS])
    client = kubernetes_client(connect(kube_config=kubeconfig_of(cluster_client, {"token": token})), None)
    cluster = NamespaceClient(lambda: client, namespace, "web in production")
    denied: list[str] = []

    def applied() -> bool:
        try:
            cluster.apply([SETTINGS])
        except AccessDeniedError as error:
            text = str(error)
            if text not in denied:
                denied.append(text)
                rules.extend(yaml.safe_load(text.partition("\n")[2]))
                allow(cluster_client, namespace, rules)
            return False
        return True

    wait_until(applied, "that the deployer may apply", timeout=60)
    assert len(denied) == 2
    user = f"system:serviceaccount:{namespace}:deployer"
    assert f"{user} cannot patch configmaps of API group 'core' in namespace {namespace}" in denied[0]
    assert 'verbs: ["create"]' in denied[1]
    assert cluster.get("v1", "ConfigMap", "settings") is not None
    with pytest.raises(AccessDeniedError, match='(?s)cannot delete configmaps.*verbs: \\["delete"\\]'):
        cluster.delete(reference_of(SETTINGS), {})


class Answers(BaseHTTPRequestHandler):
    """Answers with the codes it was given, one after the other, and then well."""

    codes: list[int] = []
    asked: list[str] = []

    def _answer(self) -> None:
        type(self).asked.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code = self.codes.pop(0) if self.codes else 200
        if code == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = b'{"metadata": {"name": "settings"}}'
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serving(codes: list[int]) -> Iterator[tuple[str, list[str]]]:
    """A server that fails with these codes before it works; 0 breaks the connection off."""
    handler = type("Handler", (Answers,), {"codes": list(codes), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def client_of(connect: Connect, url: str) -> Any:
    cluster = {"name": "c", "cluster": {"server": url}}
    context = {"name": "usual", "context": {"cluster": "c", "user": "u"}}
    config = {"clusters": [cluster], "contexts": [context], "current-context": "usual", "users": []}
    return kubernetes_client(connect(kube_config=config), None)


@pytest.mark.parametrize("codes", [[429], [503, 500], [0, 0]])
def test_what_may_be_repeated_is(connect: Connect, codes: list[int]) -> None:
    with serving(codes) as (url, asked):
        cluster = NamespaceClient(lambda: client_of(connect, url), "shop", "web")
        cluster.apply([SETTINGS])
    assert asked == ["PATCH"] * (len(codes) + 1)


@pytest.mark.parametrize(("codes", "times"), [([503, 503], 1), ([0, 0], 1), ([429], 2)])
def test_what_would_make_an_object_twice_is_not_repeated(
    connect: Connect, codes: list[int], times: int
) -> None:
    with serving(codes) as (url, asked):
        cluster = NamespaceClient(lambda: client_of(connect, url), "shop", "web")
        try:
            cluster.create(SETTINGS)
        except TargetError:
            pass
    assert asked == ["POST"] * times


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait less than they do."""
    monkeypatch.setattr(hook, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(hook, "_READ_SECONDS", 0.5)
    monkeypatch.setattr(hook, "_RETRIED_SECONDS", 1.0)


def test_a_server_that_never_answers_is_given_up(connect: Connect, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cluster = NamespaceClient(lambda: client_of(connect, url), "shop", "web in production")
        with pytest.raises(TargetError, match="web in production: the cluster does not answer.*timed out"):
            cluster.apply([SETTINGS])


def test_a_server_that_is_not_there_is_given_up(connect: Connect, impatient: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    cluster = NamespaceClient(lambda: client_of(connect, url), "shop", "web in production")
    with pytest.raises(TargetError, match="web in production: the cluster does not answer"):
        cluster.apply([SETTINGS])


def test_a_server_that_comes_back_is_waited_for(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    cluster = NamespaceClient(lambda: client_of(connect, f"http://127.0.0.1:{port}"), "shop", "web")
    handler = type("Handler", (Answers,), {"codes": [], "asked": []})
    server: list[ThreadingHTTPServer] = []

    def come_back() -> None:
        server.append(ThreadingHTTPServer(("127.0.0.1", port), handler))
        server[0].serve_forever()

    later = threading.Timer(1.0, come_back)
    later.start()
    try:
        cluster.create(SETTINGS)
    finally:
        later.join(0)
        server[0].shutdown()
        server[0].server_close()


def test_no_vendor_library_is_imported_with_the_hook() -> None:
    import subprocess
    import sys

    code = "import sys, airflow_cd.hooks.kubernetes; print('kubernetes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
