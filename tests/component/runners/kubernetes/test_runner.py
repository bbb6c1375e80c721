"""Commands in Jobs: confined, gone on with after a crash, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from harness.waiting import wait_until
from tests.support.cluster import allow, deployer, kubeconfig_of
from tests.support.cluster_jobs import left_in, need_nodes_that_answer
from tests.support.engine import PYTHON
from tests.support.tcp_relay import TcpRelay
from websocket import WebSocketConnectionClosedException

from airflow_cd.exceptions import CommandError, CommandTimeoutError, RunnerError
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.model.runner import KubernetesRunnerSettings
from airflow_cd.runners.base import Runner
from airflow_cd.runners.kubernetes import workspace_volume
from airflow_cd.runners.kubernetes.workspace_volume import execute
from airflow_cd.runners.registry import open_runner

ROLE = Path(__file__).parents[4] / "docs" / "kubernetes-runner.md"
# A worker that runs two commands; the first says so, and goes on when it finds the file `go` in its home.
WORKER = f"""
import sys
from pathlib import Path
from airflow_cd.hooks.kubernetes import kubernetes_client
from airflow_cd.model.runner import KubernetesRunnerSettings
from airflow_cd.runners.registry import open_runner

folder, namespace = Path(sys.argv[1]), sys.argv[2]
settings = KubernetesRunnerSettings(image={PYTHON!r}, namespace=namespace)
runner = open_runner("kubernetes", settings, lambda: kubernetes_client(None, None))
say = lambda line: print(">", line, flush=True)
with runner.job(str(folder.parent), folder):
    hold = "echo begun; echo $$ >> starts; until [ -e $HOME/go ]; do sleep 0.1; done"
    for command in (hold, "echo second"):
        runner.run(["sh", "-c", command], cwd=folder, env={{}}, timeout=120, on_line=say)
"""
HELD = ["sh", "-c", "echo begun; sleep 300"]


@pytest.fixture(autouse=True)
def nothing_left(cluster_client: Any, namespace: str) -> Iterator[None]:
    """Whatever a test does, no Job and no pod is there at the end."""
    need_nodes_that_answer(cluster_client)
    yield
    wait_until(lambda: not left_in(cluster_client, namespace), "all is removed", timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


Run = Callable[..., list[str]]


@pytest.fixture
def run(folder: Path, namespace: str) -> Run:
    """Run commands as one job and return their output."""

    def run(
        *commands: list[str],
        connect: Any = None,
        timeout: float = 60,
        on_line: Callable[[str], object] = len,
        **settings: Any,
    ) -> list[str]:
        lines: list[str] = []
        runner = opened({"namespace": namespace, **settings}, connect)

        def heard(line: str) -> None:
            lines.append(line)
            on_line(line)

        with runner.job(str(folder.parent), folder):
            for argv in commands:
                runner.run(argv, cwd=folder, env={}, timeout=timeout, on_line=heard)
        return lines

    return run


def opened(settings: dict[str, Any], connect: Any = None) -> Runner:
    usual = lambda: kubernetes_client(None, None)  # noqa: E731
    return open_runner(
        "kubernetes", KubernetesRunnerSettings(**{"image": PYTHON, **settings}), connect or usual
    )


def in_pod(client: Any, namespace: str, pod: str, command: str) -> None:
    execute(client, namespace, pod, "hold", ["sh", "-c", command])


def pods(client: Any, namespace: str) -> list[Any]:
    from kubernetes.client import CoreV1Api

    return list(CoreV1Api(client).list_namespaced_pod(namespace, label_selector="airflow-cd/job").items)


@contextmanager
def worker(folder: Path, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", WORKER, str(folder), namespace]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert said_by(process) == "begun"
        yield process


def said_by(process: subprocess.Popen[bytes]) -> str:
    """Return the next line of output that a worker was handed."""
    assert process.stdout is not None
    return next((line[2:-1].decode() for line in process.stdout if line.startswith(b"> ")), "nothing more")


@pytest.fixture
def killed_worker(folder: Path, namespace: str, cluster_client: Any) -> str:
    """Return the pod that a worker left running when it was killed."""
    with worker(folder, namespace) as process:
        os.kill(process.pid, signal.SIGKILL)
    (pod,) = pods(cluster_client, namespace)
    return str(pod.metadata.name)


def test_the_user_is_nobody_special_and_has_no_token(run: Run) -> None:
    code = "import os; print(os.getuid(), os.getgid(), open('/proc/self/status').read(), os.listdir('/run'))"
    status = "\n".join(run(["python3", "-c", code], user="1234"))
    assert status.startswith("1234 1234 ")
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert "secrets" not in status.splitlines()[-1]


def test_memory_is_limited_and_that_is_said(run: Run) -> None:
    with pytest.raises(CommandError, match="more memory than `memory: 64m`"):
        run(["python3", "-c", "x = b'1' * 300_000_000"], memory="64m")


def test_what_is_asked_for_is_what_is_allowed(run: Run, cluster_client: Any, namespace: str) -> None:
    seen: list[Any] = []

    def look(line: str) -> None:
        seen.extend(pods(cluster_client, namespace))

    run(["echo", "begun"], memory="64m", cpus=0.25, on_line=look)
    resources = next(one for one in seen[0].spec.containers if one.name == "command").resources
    assert resources.limits == resources.requests == {"memory": "64Mi", "cpu": "250m"}


def test_an_image_that_is_nowhere_is_said_early(run: Run, registry: Any) -> None:
    image = f"{registry.address}/nowhere:1"
    with pytest.raises(RunnerError, match=r"cannot be pulled.*correct `image`"):
        run(["true"], image=image, start_timeout="1h")


def test_nodes_that_there_are_not_are_said(run: Run) -> None:
    selector = {"example.com/disk": "none-has-it"}
    with pytest.raises(RunnerError, match=r"`start_timeout: 4s`.*fits on no node.*`node_selector`"):
        run(["true"], node_selector=selector, start_timeout="4s")


def test_a_full_quota_is_said(run: Run, cluster_client: Any, namespace: str) -> None:
    from kubernetes.client import CoreV1Api

    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    CoreV1Api(cluster_client).create_namespaced_resource_quota(namespace, quota)
    with pytest.raises(RunnerError, match=r"`start_timeout: 4s`.*exceeded quota"):
        run(["true"], start_timeout="4s")


def test_a_limit_that_the_namespace_wants_is_said_early(
    run: Run, cluster_client: Any, namespace: str
) -> None:
    from kubernetes.client import CoreV1Api

    quota = {"metadata": {"name": "some"}, "spec": {"hard": {"limits.memory": "1Gi"}}}
    CoreV1Api(cluster_client).create_namespaced_resource_quota(namespace, quota)
    with pytest.raises(RunnerError, match=r"must specify limits.memory.*lower or set `memory`"):
        run(["true"], start_timeout="1h")
    assert run(["echo", "fits"], memory="64m") == ["fits"]


def test_a_namespace_that_there_is_not_is_said(run: Run) -> None:
    with pytest.raises(
        RunnerError, match=r"namespace cd-nowhere does not exist.*`runner.kubernetes.namespace`"
    ):
        run(["true"], namespace="cd-nowhere")


def rules() -> list[dict[str, Any]]:
    """Return the rules that the documentation asks for."""
    block = next(part for part in ROLE.read_text().split("```yaml\n") if "kind: Role" in part)
    return list(yaml.safe_load(block.partition("```")[0])["rules"])


@pytest.fixture
def restricted(cluster_client: Any, namespace: str) -> Callable[..., Any]:
    """Return how to connect as a user who may do what the documentation asks for, and nothing else."""
    token = deployer(cluster_client, namespace, rules())

    def connect() -> Any:
        from kubernetes.config import new_client_from_config_dict

        return new_client_from_config_dict(kubeconfig_of(cluster_client, {"token": token}))

    return connect


def test_the_documented_rights_are_enough(run: Run, restricted: Any) -> None:
    assert run(["echo", "one"], ["echo", "two"], connect=restricted) == ["one", "two"]
    with pytest.raises(CommandTimeoutError):
        run(HELD, connect=restricted, timeout=1)


@pytest.mark.parametrize(
    ("resource", "verb"),
    [("jobs", "list"), ("jobs", "create"), ("pods", "list"), ("pods/log", "get"), ("pods/exec", "get")],
)
def test_a_missing_right_is_named(
    run: Run, restricted: Any, cluster_client: Any, namespace: str, resource: str, verb: str
) -> None:
    fewer = rules()
    for rule in fewer:
        if resource in rule["resources"]:
            rule["verbs"].remove(verb)
    allow(cluster_client, namespace, [rule for rule in fewer if rule["verbs"]])
    with pytest.raises(RunnerError, match=rf'(?s)cannot \w+ {resource} of.*verbs: \["{verb}"\]'):
        run(["true"], connect=restricted)


@pytest.mark.parametrize("when", ["it still runs", "it has ended"])
def test_a_killed_workers_command_is_gone_on_with(
    folder: Path, namespace: str, cluster_client: Any, killed_worker: str, when: str
) -> None:
    if when == "it has ended":
        in_pod(cluster_client, namespace, killed_worker, "touch /cd/home/go")
        wait_until(lambda: has_ended(cluster_client, namespace), "the command ends", timeout=30)
    # What was said to the first try is not lost.
    with worker(folder, namespace) as retry:
        if when == "it still runs":
            in_pod(cluster_client, namespace, killed_worker, "touch /cd/home/go")
        assert (said_by(retry), said_by(retry)) == ("second", "nothing more")
    assert retry.returncode == 0
    assert len((folder / "starts").read_text().splitlines()) == 1


def has_ended(client: Any, namespace: str) -> bool:
    statuses = [one for pod in pods(client, namespace) for one in pod.status.container_statuses or []]
    return any(one.name == "command" and one.state.terminated for one in statuses)


def test_a_command_whose_pod_was_lost_is_run_again(
    folder: Path, namespace: str, cluster_client: Any, killed_worker: str
) -> None:
    from kubernetes.client import CoreV1Api

    CoreV1Api(cluster_client).delete_namespaced_pod(killed_worker, namespace, grace_period_seconds=1)
    with worker(folder, namespace) as retry:
        (pod,) = [one for one in pods(cluster_client, namespace) if one.status.phase == "Running"]
        in_pod(cluster_client, namespace, pod.metadata.name, "touch /cd/home/go")
        assert (said_by(retry), said_by(retry)) == ("second", "nothing more")
    assert len((folder / "starts").read_text().splitlines()) == 1


def test_a_pod_that_somebody_deletes_is_no_failing_command(
    run: Run, namespace: str, cluster_client: Any
) -> None:
    from kubernetes.client import ApiException, CoreV1Api

    def delete(line: str) -> None:
        for pod in pods(cluster_client, namespace):
            with suppress(ApiException):  # it is on its way out
                CoreV1Api(cluster_client).delete_namespaced_pod(pod.metadata.name, namespace)

    with pytest.raises(RunnerError, match="pod"):
        run(HELD, on_line=delete)


def test_output_is_whole_although_the_connection_breaks(run: Run, cluster_client: Any) -> None:
    address = urlsplit(cluster_client.configuration.host)
    relay = TcpRelay((str(address.hostname), int(address.port or 443)))

    def connect() -> Any:
        client = kubernetes_client(None, None)
        client.configuration.host = f"https://127.0.0.1:{relay.port}"
        return client

    code = """
import sys, time
for n in range(2000):
    print(n, "x" * (n % 200), file=(sys.stdout, sys.stderr)[n % 2], flush=True)
    if n % 300 == 0: time.sleep(1)
print("end", end="")
"""

    def drop(line: str) -> None:
        if line.split()[0].endswith("50"):
            relay.drop()

    *lines, end = run(["python3", "-c", code], connect=connect, on_line=drop)
    assert sorted(int(line.split()[0]) for line in lines) == list(range(2000))
    assert end == "end" and relay.accepted > 5
    relay.cut()


def test_a_container_may_end_before_its_program_is_heard_of(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when `receive` or `hold` ends by the file that the program just made."""
    heard = workspace_volume._once

    def unheard(client: Any, path: str, container: str, argv: list[str], *streams: Any) -> None:
        heard(client, path, container, argv, *streams)
        if container == "receive" or argv[2] == workspace_volume._LET_GO:
            raise WebSocketConnectionClosedException("the connection ended before the program did")

    monkeypatch.setattr(workspace_volume, "_once", unheard)
    (folder / "given").write_text("content")
    assert run(["cat", "given"], ["sh", "-c", "cat given; echo more > made"]) == ["content", "content"]
    assert (folder / "made").read_text() == "more\n"


def test_a_command_whose_time_is_over_leaves_what_it_did(run: Run, folder: Path) -> None:
    endless = "(trap '' TERM; while :; do date >> $HOME/log; done) & touch made; sleep 300"
    with pytest.raises(CommandTimeoutError):
        run(["sh", "-c", endless], timeout=1)
    assert [path.name for path in folder.iterdir()] == ["made"]


def test_workspaces_may_be_large_and_hold_anything(run: Run, folder: Path) -> None:
    bytes_of = random.Random(6).randbytes
    for n in range(2500):
        (folder / f"dir{n % 50}").mkdir(exist_ok=True)
        (folder / f"dir{n % 50}" / f"file{n}").write_bytes(bytes_of(n))
    for n in range(4):
        (folder / f"large{n}").write_bytes(bytes_of(12_000_000))
    deep = folder / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("f" * 90)).write_bytes(b"\0\xff\r\n" * 1000)
    before = digests(folder)
    # Folders nobody may write to, as Go keeps its modules in.
    locked = (
        "mkdir -p $HOME/mod locked && touch $HOME/mod/a locked/b none && "
        "chmod 555 $HOME/mod locked && chmod 0 none"
    )
    code = "import os; assert os.path.exists(os.environ['HOME'] + '/mod/a') and os.path.exists('locked/b')"
    run(["sh", "-c", locked], ["python3", "-c", code])
    found = digests(folder)
    assert {path: found.get(path) for path in before} == before
    assert set(found) - set(before) == {"locked/b", "none"}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_nobody_came_back_for_is_removed(run: Run, cluster_client: Any, namespace: str) -> None:
    from kubernetes.client import BatchV1Api

    from airflow_cd.runners.kubernetes.job_manifest import Command, job_of

    jobs = BatchV1Api(cluster_client)
    for name, until in (("cd-abandoned", "1"), ("cd-waits", "4000000000")):
        job = job_of(
            KubernetesRunnerSettings(image=PYTHON, namespace=namespace), name, Command(0, ["true"], {}, 60)
        )
        job["metadata"]["labels"]["airflow-cd/until"] = until
        jobs.create_namespaced_job(namespace, job)
    run(["true"])
    assert {job.metadata.name for job in jobs.list_namespaced_job(namespace).items} == {"cd-waits-0"}
    jobs.delete_namespaced_job("cd-waits-0", namespace, propagation_policy="Background")
