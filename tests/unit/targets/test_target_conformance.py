"""What every target does. A new target is one more row in TARGETS."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo.ports import any_free, is_listening
from demo.waiting import wait_until
from tests.support.releases import release_of

from airflow_cd.artifacts.archive import pack, unpack
from airflow_cd.artifacts.base import ArtifactStore
from airflow_cd.artifacts.registry import open_store
from airflow_cd.exceptions import (
    ArtifactCorruptError,
    DeployConflictError,
    NoPreviousReleaseError,
    NotReadyError,
    TargetError,
)
from airflow_cd.model.release import Release
from airflow_cd.model.service import Environment
from airflow_cd.targets.base import Hold, Target
from airflow_cd.targets.local.target import root_of, shutdown
from airflow_cd.targets.registry import TARGETS as REGISTERED
from airflow_cd.targets.registry import open_target

# kind -> its definition in services.yaml, for a free port
TARGETS: dict[str, Callable[[int], dict[str, Any]]] = {
    "local": lambda port: {"command": ["python", "app.py"], "port": port, "drain": "2s", "keep": 2}
}

APP = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = (json.dumps(dict(os.environ)) if self.path == "/env" else {text!r}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
BROKEN = "print('no database'); raise SystemExit(3)"

DEPLOY = """
import sys
from pathlib import Path
from airflow_cd.artifacts.archive import unpack
from airflow_cd.artifacts.registry import open_store
from airflow_cd.model.release import Release
from airflow_cd.model.service import Environment
from airflow_cd.targets.registry import open_target
environment, release, store, data, expected, actor = sys.argv[1:]
target = open_target(
    "hello", Environment.model_validate_json(environment), data_dir=Path(data), unpack=unpack
)
sys.stdin.readline()
try:
    record = target.deploy(
        Release.model_validate_json(release), open_store(store), expected=int(expected), actor=actor
    )
    print("WON", record.generation)
except Exception as error:
    print("LOST", type(error).__name__, error)
"""


class Place:
    """A target, a store, and releases to deploy."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.data, self.folder = folder / "data", folder
        self.store: ArtifactStore = open_store((folder / "store").as_uri())
        self.port = any_free()[0]
        definition = {"name": "production", "target": {kind: TARGETS[kind](self.port)}}
        self.environment = Environment.model_validate(definition)
        self.target: Target = open_target("hello", self.environment, data_dir=self.data, unpack=unpack)

    def release(self, text: str, code: str = APP) -> Release:
        source = self.folder / f"source-{text}"
        source.mkdir()
        (source / "app.py").write_text(code.replace("{text!r}", repr(text)))
        pack(source, self.folder / "archive", include=["**"])
        number = len(list(self.folder.glob("source-*")))
        digest = self.store.put_file(self.folder / "archive")
        return release_of(digest, version=text, sha=f"{number:040x}", subject=text)

    def deploy(self, release: Release, expected: int | None = None) -> int:
        if expected is None:
            expected = self.target.record().generation
        return self.target.deploy(release, self.store, expected=expected, actor="test").generation

    def deploying_process(
        self, release: Release, expected: int, actor: str = "other"
    ) -> subprocess.Popen[str]:
        """Return a process that deploys once it reads a line."""
        argv = [
            *(sys.executable, "-c", DEPLOY, self.environment.model_dump_json(), release.model_dump_json()),
            *(self.store.url, str(self.data), str(expected), actor),
        ]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def served(self, path: str = "/") -> str:
        return httpx.get(f"{self.target.url()}{path}", trust_env=False).text

    def instances(self) -> list[str]:
        """Return the supervised programs of this service, the front left out."""
        return [path.stem for path in self.data.rglob("supervisor.d/*.conf") if "front" not in path.stem]


@pytest.fixture(params=sorted(TARGETS))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    one = Place(request.param, tmp_path)
    yield one
    shutdown(root_of(one.data))
    assert not is_listening(one.port)


def test_every_registered_target_is_tested() -> None:
    assert set(TARGETS) == set(REGISTERED)


def test_nothing_runs_at_first(place: Place) -> None:
    record = place.target.record()
    assert (record.generation, record.current, record.previous) == (0, None, ())


def test_releases_follow_each_other(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    assert (place.deploy(one), place.served()) == (1, "one")
    assert (place.deploy(two), place.served()) == (2, "two")
    record = place.target.record()
    assert record.current is not None and record.current.release == two
    assert [deployed.release for deployed in record.previous] == [one]
    assert len(place.instances()) == 1


def test_the_same_release_is_deployed_once(place: Place) -> None:
    one = place.release("one")
    place.deploy(one)
    before = place.target.record()
    # Whatever the caller believed: a retry after a killed worker finds its own work.
    assert place.deploy(one, expected=0) == 1
    assert place.target.record() == before


def test_a_decision_based_on_an_old_record_is_refused(place: Place) -> None:
    place.deploy(place.release("one"))
    with pytest.raises(DeployConflictError, match="generation 0.*generation 1.*runs one, deployed by test"):
        place.deploy(place.release("two"), expected=0)
    assert place.served() == "one"


def test_two_at_the_same_moment_have_one_winner(place: Place) -> None:
    place.deploy(place.release("one"))
    rivals = [place.deploying_process(place.release(text), 1, actor=text) for text in ("two", "three")]
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("\n")
        rival.stdin.flush()
    answers = [rival.communicate()[0] for rival in rivals]
    assert sorted(answer.split()[0] for answer in answers) == ["LOST", "WON"]
    lost = next(answer for answer in answers if answer.startswith("LOST"))
    winner = ("two", "three")[answers.index(next(a for a in answers if a.startswith("WON")))]
    assert "DeployConflictError" in lost and winner in lost
    assert place.served() == winner
    assert len(place.instances()) == 1


def test_what_does_not_get_ready_changes_nothing(place: Place) -> None:
    place.deploy(place.release("one"))
    before = place.target.record()
    with pytest.raises(NotReadyError, match="(?s)it ended.*no database"):
        place.deploy(place.release("broken", BROKEN))
    assert (place.target.record(), place.served()) == (before, "one")
    assert len(place.instances()) == 1


def test_a_changed_archive_changes_nothing(place: Place) -> None:
    place.deploy(place.release("one"))
    two = place.release("two")
    for blob in (place.folder / "store/blobs").rglob("*"):
        if blob.is_file() and two.digest.endswith(blob.name):
            blob.write_bytes(b"evil")
    with pytest.raises(ArtifactCorruptError, match=two.digest):
        place.deploy(two)
    assert place.served() == "one"


def test_a_rollback_needs_neither_store_nor_source(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    shutil.rmtree(place.folder / "store")
    record = place.target.rollback(bad=two.digest, actor="test")
    assert (place.served(), record.generation) == ("one", 3)
    assert record.current is not None
    assert (record.current.release, record.current.rolled_back_from) == (one, two.digest)
    # The bad release is nowhere to go back to, and doing it again changes nothing.
    assert record.previous == ()
    assert place.target.rollback(bad=two.digest, actor="test") == record


def test_a_rollback_is_told_as_it_was(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    current = place.target.record().current
    assert current is not None and current.replaced is not None
    assert current.replaced.digest == one.digest
    hold = Hold(by="ada", since=datetime.now(timezone.utc), reason="prices")
    place.target.rollback(bad=two.digest, actor="run", reason="prices are wrong", hold=hold)
    record = place.target.record()
    assert record.current is not None and record.current.replaced is not None
    assert (record.current.reason, record.current.rolled_back_from) == ("prices are wrong", two.digest)
    assert record.current.replaced.digest == two.digest
    assert record.hold == hold
    place.deploy(two)
    assert place.target.record().hold is None, "a deployment lifts the hold"


def test_a_rollback_undoes_only_what_it_was_told(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    before = place.target.record()
    assert place.target.rollback(bad=one.digest, actor="test") == before
    assert place.served() == "two"


def test_there_may_be_nothing_to_go_back_to(place: Place) -> None:
    one = place.release("one")
    place.deploy(one)
    with pytest.raises(NoPreviousReleaseError, match="nothing|no .*to go back to"):
        place.target.rollback(bad=one.digest, actor="test")
    assert place.served() == "one"


def test_only_some_previous_releases_are_kept(place: Place) -> None:
    releases = [place.release(str(n)) for n in range(5)]
    for release in releases:
        place.deploy(release)
    kept = [deployed.release.version for deployed in place.target.record().previous]
    assert kept == ["3", "2"]
    folders = {folder.name for folder in (place.data / "local/hello/production/releases").iterdir()}
    assert folders == {release.digest.removeprefix("sha256:") for release in releases[2:]}
    place.target.rollback(bad=releases[4].digest, actor="test", to=releases[2].digest)
    assert place.served() == "2"


def test_no_request_fails_while_releases_change(place: Place) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    seen: set[str] = set()
    failed: list[str] = []
    stop = threading.Event()

    def load(keep_alive: bool) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not stop.is_set():
                try:
                    get = client.get if keep_alive else httpx.get
                    response = get(str(place.target.url()))
                    seen.add(response.text)
                    if response.status_code != 200:
                        failed.append(str(response.status_code))
                except httpx.HTTPError as error:
                    failed.append(repr(error))

    threads = [threading.Thread(target=load, args=(keep,)) for keep in (True, True, False)]
    for thread in threads:
        thread.start()
    wait_until(lambda: "one" in seen, "the load is there", timeout=10)
    place.deploy(two)
    wait_until(lambda: "two" in seen, "the load sees the new release", timeout=10)
    place.target.rollback(bad=two.digest, actor="test")
    stop.set()
    for thread in threads:
        thread.join()
    assert (failed, seen) == ([], {"one", "two"})


# Files that appear on the way of a second deployment, from its begin to its end.
MOMENTS = [
    "lease.json",
    ".*.tar.gz",
    "releases/*/app.py",
    "instance-2.json",
    "instance-2.log",
    "generations/2/record.json",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_deployment_killed_anywhere_is_finished_by_the_next(place: Place, moment: str) -> None:
    place.deploy(place.release("one"))
    two = place.release("two")
    folder = place.data / "local/hello/production"
    before = {path: path.stat().st_mtime_ns for path in folder.glob(moment)}
    process = place.deploying_process(two, 1)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()

    def reached() -> bool:
        now = {path: path.stat().st_mtime_ns for path in folder.glob(moment)}
        return now != before or process.poll() is not None

    wait_until(reached, f"{moment} appears", timeout=20, every=0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert place.served() in ("one", "two")
    place.deploy(two, expected=place.target.record().generation)
    assert place.served() == "two"
    assert place.target.record().generation == 2
    assert place.instances() == ["hello.production.2"]
    assert list(folder.glob(".*")) == []


class TestLocal:
    """What only processes of this machine can get wrong."""

    def test_nothing_of_airflow_reaches_a_service(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "secret")
        monkeypatch.setenv("AIRFLOW_CONN_X", "secret")
        one = place.release("one")
        place.deploy(one)
        env = json.loads(place.served("/env"))
        assert not [name for name in env if name.startswith(("AIRFLOW", "SUPERVISOR"))]
        assert (env["CD_RELEASE"], env["CD_ENVIRONMENT"]) == (one.digest, "production")

    def test_a_service_that_dies_is_started_again(self, place: Place) -> None:
        place.deploy(place.release("one"))
        (pid,) = self.pids(place)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(lambda: self.pids(place) not in ([], [pid]), "another process runs", timeout=20)
        wait_until(lambda: place.served() == "one", "it answers", timeout=10)

    def test_everything_comes_back_after_the_supervisor_was_gone(self, place: Place) -> None:
        one = place.release("one")
        place.deploy(one)
        shutdown(root_of(place.data))
        assert not is_listening(place.port)
        place.deploy(one)
        assert (place.served(), place.target.record().generation) == ("one", 1)

    def test_a_port_that_is_taken_is_said_before_anything_starts(self, place: Place) -> None:
        argv = [sys.executable, "-m", "http.server", str(place.port), "--bind", "127.0.0.1"]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as other:
            wait_until(lambda: is_listening(place.port), "the port is taken", timeout=10)
            with pytest.raises(TargetError, match=f"127.0.0.1:{place.port}.*process {other.pid}"):
                place.deploy(place.release("one"))
            other.kill()
        assert place.target.record().current is None

    def test_arguments_arrive_as_they_are(self, tmp_path: Path) -> None:
        hostile = ["python", "-c", "import app", "a b", "%(x)s", "; touch evil", "'\"", "new\nline", "$(id)"]
        place = Place("local", tmp_path)
        changed = place.environment.model_dump(mode="json")
        changed["target"]["local"]["command"] = hostile
        place.target = open_target(
            "hello", Environment.model_validate(changed), data_dir=place.data, unpack=unpack
        )
        try:
            place.deploy(place.release("one"))
            (pid,) = self.pids(place)
            assert Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1:-1] == hostile[1:]
        finally:
            shutdown(root_of(place.data))

    @staticmethod
    def pids(place: Place) -> list[int]:
        from airflow_cd.targets.local.supervision import Supervisor

        supervisor = Supervisor(root_of(place.data))
        found = [supervisor.process(name) for name in place.instances()]
        return [process.pid for process in found if process and process.alive]
