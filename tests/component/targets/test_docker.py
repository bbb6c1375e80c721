"""What only containers of an engine can get wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.waiting import wait_until
from pydantic import ValidationError
from tests.support.cut_off import Relay
from tests.support.engine import FRONT
from tests.support.images import Registry, built
from tests.support.places import DockerPlace

from airflow_cd.exceptions import ArtifactError, DeployConflictError, NotReadyError, TargetError
from airflow_cd.targets.docker.lease import EngineLease
from airflow_cd.testing.programs import APP, BROKEN

DOCKERFILE = 'FROM python:3.11-slim\nCOPY app.py /app.py\n{more}\nCMD ["python", "-u", "/app.py"]\n'
SLOW = APP.replace("body = (", "import time; time.sleep(3 if self.path == '/slow' else 0); body = (")


@pytest.fixture
def place(tmp_path: Path, engine: Any, registry: Registry) -> Iterator[DockerPlace]:
    one = DockerPlace(tmp_path, engine, registry)
    try:
        yield one
    finally:
        one.close()


def names(place: DockerPlace) -> set[str]:
    """Return everything the engine has of the service, without the service's name and attempts' tokens."""
    found = {"filters": {"name": f"cd.{place.service}."}}
    everything = [
        *place.engine.containers.list(all=True, ignore_removed=True, **found),
        *place.engine.volumes.list(**found),
        *place.engine.networks.list(**found),
    ]
    return {without_token(one.name).removeprefix(f"cd.{place.service}.") for one in everything}


def without_token(name: str) -> str:
    return re.sub(r"(\.\d+)-[0-9a-f]{8}$", r"\1", name)


MOMENTS: dict[str, Callable[[DockerPlace], bool]] = {
    "the lease is held": lambda place: "production.lease" in names(place),
    "the new container is there": lambda place: "production.2" in names(place),
    "the new container is ready": lambda place: restarts(place, 2) == "unless-stopped",
    "requests go to the new one": lambda place: place.target.record().generation == 2,
    "the old one is gone": lambda place: "production.1" not in names(place),
}


def restarts(place: DockerPlace, generation: int) -> str:
    mine = {"label": [f"airflow-cd.target={place.service}/production", f"airflow-cd.generation={generation}"]}
    for one in place.engine.containers.list(all=True, ignore_removed=True, filters=mine):
        return str(one.attrs["HostConfig"]["RestartPolicy"]["Name"])
    return ""


@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_a_deployment_killed_anywhere_is_finished_by_the_next(place: DockerPlace, moment: str) -> None:
    place.deploy(place.release("one"))
    two = place.release("two")
    process = place.deploying_process(two, 1)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    wait_until(lambda: MOMENTS[moment](place) or process.poll() is not None, moment, timeout=60, every=0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert place.served() in ("one", "two")
    place.deploy(two, expected=place.target.record().generation)
    assert (place.served(), place.target.record().generation) == ("two", 2)
    wait_until(
        lambda: names(place) == {"production", "production.2", "production.front"},
        "nothing is left",
        timeout=30,
    )


@pytest.mark.parametrize("what", ["lease", "front", "2", "2-0123abcd"])
def test_what_a_killed_worker_made_and_never_started_is_made_anew(place: DockerPlace, what: str) -> None:
    place.deploy(place.release("one"))
    name = f"cd.{place.service}.production.{what}"
    if what == "front":
        place.engine.containers.get(name).remove(force=True)
    labels = {"airflow-cd.target": f"{place.service}/production"}
    if what[0] == "2":
        labels["airflow-cd.generation"] = "2"
    # A front has the volume from the first moment: the record is read through it.
    volumes = [f"cd.{place.service}.production:/cd"] if what == "front" else []
    half = place.engine.containers.create(FRONT, ["cat"], name=name, labels=labels, volumes=volumes)
    place.deploy(place.release("two"))
    assert place.served() == "two"
    assert half.id not in [one.id for one in place.engine.containers.list(all=True, ignore_removed=True)]


def test_an_engine_that_is_gone_in_the_middle_is_told_and_the_next_try_goes_on(
    place: DockerPlace, tmp_path: Path
) -> None:
    place.deploy(place.release("one"))
    two = place.release("two", SLOW_START)
    relay = Relay(tmp_path / "s", os.environ["DOCKER_HOST"].removeprefix("unix://"))
    process = place.deploying_process(two, 1, env={"DOCKER_HOST": relay.address})
    threading.Thread(target=lambda: cut_when_started(place, relay)).start()
    answer = process.communicate("\n")[0]
    assert answer.startswith(f"LOST TargetError {place.service} in production: the Docker engine failed")
    assert place.served() == "one"
    place.deploy(two)
    assert (place.served(), len(place.instances())) == ("two", 1)
    assert "production.2" in names(place)


SLOW_START = "import time; time.sleep(1.5)\n" + APP


def cut_when_started(place: DockerPlace, relay: Relay) -> None:
    wait_until(lambda: MOMENTS["the new container is there"](place), "it starts", timeout=60, every=0.01)
    relay.cut()


def test_what_never_gets_healthy_leaves_nothing(place: DockerPlace) -> None:
    with pytest.raises(NotReadyError, match="(?s)exit code 3.*no database"):
        place.deploy(place.release("broken", BROKEN))
    assert names(place) == set()
    assert place.target.record().generation == 0


SILENT = """
import os, socket, time
with socket.create_server((os.environ["HOST"], int(os.environ["PORT"]))):
    time.sleep(60)
"""
ENDS = APP.replace(".serve_forever()", ".handle_request()")


@pytest.mark.parametrize(
    ("code", "says"),
    [(SILENT, "did not answer to GET / on port 8080"), (ENDS, "it ended with exit code 0")],
    ids=["never answers", "answers once"],
)
def test_an_open_port_is_not_enough(place: DockerPlace, code: str, says: str) -> None:
    place.deploy(place.release("one"))
    place.reopen(start_timeout="3s")
    with pytest.raises(NotReadyError, match=says):
        place.deploy(place.release("two", code))
    assert place.served() == "one"


def test_the_images_own_health_check_counts(place: DockerPlace) -> None:
    check = 'HEALTHCHECK --interval=1s --retries=1 CMD ["python", "-c", "{code}"]'
    well = with_dockerfile(place, "well", DOCKERFILE.format(more=check.format(code="")))
    ill = with_dockerfile(place, "ill", DOCKERFILE.format(more=check.format(code="raise SystemExit(1)")))
    place.deploy(well)
    with pytest.raises(NotReadyError, match="HEALTHCHECK says that it is unhealthy"):
        place.deploy(ill)
    assert place.served() == "well"


def with_dockerfile(place: DockerPlace, text: str, dockerfile: str) -> Any:
    code = APP.replace("{text!r}", repr(text))
    digest = built(place.engine, place.repository, text, code, dockerfile)
    return place.release(text).model_copy(update={"digest": digest})


def test_a_container_has_what_its_environment_defines(place: DockerPlace, tmp_path: Path) -> None:
    show = (
        "import os, pathlib; text = lambda p: pathlib.Path(p).read_text(); "
        "shown = '|'.join([text('/run/secrets/db-password'), text('/data/kept'), "
        "str(os.getuid()), text('/sys/fs/cgroup/memory/memory.limit_in_bytes').strip() "
        "if os.path.exists('/sys/fs/cgroup/memory') else '67108864', os.environ['COLOUR']])\n"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data/kept").write_text("kept")
    network = place.engine.networks.create(f"test-{place.service}")
    try:
        place.reopen(
            secrets={"db-password": "shop_db"},
            volumes=[{"source": str(tmp_path / "data"), "target": "/data", "read_only": True}],
            user="1000",
            memory="64m",
            env={"COLOUR": "blue"},
            networks=[network.name],
        )
        release = place.release("one", show + APP.replace("{text!r}", "shown"))
        place.deploy(release)
        assert place.served() == "password of shop_db|kept|1000|67108864|blue"
        container = place.engine.containers.get(place.instances()[0])
        assert network.name in container.attrs["NetworkSettings"]["Networks"]
        assert "shop_db" not in json.dumps(container.attrs)
        assert container.labels["airflow-cd.digest"] == release.digest
        env = json.loads(place.served("/env"))
        assert (env["CD_RELEASE"], env["CD_ENVIRONMENT"]) == (release.digest, "production")
        assert not [name for name in env if name.startswith("AIRFLOW")]
    finally:
        place.target.remove()  # type: ignore[attr-defined]
        network.remove()


def test_a_service_that_dies_is_started_again(place: DockerPlace) -> None:
    place.deploy(place.release("one"))
    container = place.engine.containers.get(place.instances()[0])
    subprocess.run(["kill", "-9", str(container.attrs["State"]["Pid"])], check=True)
    wait_until(lambda: restarted(container), "the engine restarts it", timeout=30)
    wait_until(lambda: place.served() == "one", "it answers", timeout=30)


def restarted(container: Any) -> bool:
    container.reload()
    return bool(container.attrs["RestartCount"] and container.attrs["State"]["Running"])


def test_what_somebody_removed_comes_back_with_the_next_deployment(place: DockerPlace) -> None:
    one = place.release("one")
    place.deploy(one)
    for name in (*place.instances(), f"cd.{place.service}.production.front"):
        place.engine.containers.get(name).remove(force=True)
    assert place.target.record().generation == 1, "the record outlives its containers"
    place.deploy(one)
    assert (place.served(), place.target.record().generation) == ("one", 1)


def test_cleaning_an_engine_costs_neither_record_nor_rollback(place: DockerPlace) -> None:
    one, two = place.release("one"), place.release("two")
    place.deploy(one)
    place.deploy(two)
    mine = {"label": f"airflow-cd.target={place.service}/production"}
    place.engine.containers.prune(filters=mine)
    place.engine.volumes.prune(filters=mine)
    # Not all images are cleared away, since other tests build some: those with a tag would stay.
    tags = {tag for image in place.engine.images.list(place.repository) for tag in image.tags}
    assert {tag.rpartition("-")[2] for tag in tags} == {one.short, two.short}
    place.lose_sources()
    assert place.target.record().generation == 2
    place.target.rollback(bad=two.digest, actor="test")
    assert place.served() == "one"


def test_a_tag_that_somebody_moves_changes_nothing(place: DockerPlace) -> None:
    good = place.release("good")
    evil = built(place.engine, place.repository, "good", APP.replace("{text!r}", "'evil'"))
    assert place.registry.holds(place.service, "good") == evil != good.digest
    place.deploy(good)
    assert place.served() == "good"


def test_an_image_that_cannot_be_had_changes_nothing(place: DockerPlace) -> None:
    place.deploy(place.release("one"))
    missing = place.release("two").model_copy(update={"digest": f"sha256:{'0' * 64}"})
    with pytest.raises(ArtifactError, match=f"{missing.digest} cannot be pulled.*manifest unknown"):
        place.deploy(missing)
    assert (place.served(), names(place)) == ("one", {"production", "production.1", "production.front"})


def test_a_request_that_takes_long_is_finished_by_the_old_release(place: DockerPlace) -> None:
    place.deploy(place.release("one", SLOW))
    place.reopen(drain="20s")
    two, answers = place.release("two"), list[str]()
    asking = threading.Thread(target=lambda: answers.append(slow_answer(place)))
    asking.start()
    front = place.engine.containers.get(f"cd.{place.service}.production.front")
    wait_until(lambda: connected(front), "the request is on its way", timeout=10)
    place.deploy(two)
    asking.join()
    assert (answers, place.served()) == (["one"], "two")


def slow_answer(place: DockerPlace) -> str:
    return httpx.get(f"{place.target.url()}/slow", timeout=30, trust_env=False).text


def connected(front: Any) -> bool:
    rows = front.exec_run(["cat", "/proc/net/tcp"], user="0").output.decode().splitlines()
    return any(row.split()[2].endswith(":1F90") and row.split()[3] == "01" for row in rows[1:])


def test_a_port_that_is_taken_is_said_before_anything_starts(place: DockerPlace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", place.port))
        other.listen()
        with pytest.raises(TargetError, match=f"127.0.0.1:{place.port}.*choose another `port:`"):
            place.deploy(place.release("one"))
    assert place.instances() == []
    place.deploy(place.release("two"))
    assert place.served() == "two"


def test_another_port_is_taken_up_by_the_next_deployment(place: DockerPlace) -> None:
    one = place.release("one")
    place.deploy(one)
    place.port += 1
    place.reopen()
    place.deploy(one)
    assert (place.served(), place.target.url()) == ("one", f"http://127.0.0.1:{place.port}")


def test_a_lease_that_was_lost_is_noticed(place: DockerPlace) -> None:
    place.deploy(place.release("one"))
    lease = EngineLease(place.target._engine)  # type: ignore[attr-defined]
    with lease.held("ada", "two"):
        lease.check()
        with pytest.raises(DeployConflictError, match=r"another run: ada deploys two, for \d+ s \("):
            place.deploy(place.release("three"))
        place.engine.containers.get(f"cd.{place.service}.production.lease").remove(force=True)
        with pytest.raises(DeployConflictError, match="was lost"):
            lease.check()


def test_an_engine_elsewhere_must_be_reachable(place: DockerPlace) -> None:
    with pytest.raises(ValidationError, match="would answer on 127.0.0.1 of engine.example only"):
        place.reopen(engine="tcp://engine.example:2376")
    place.reopen(engine="tcp://engine.example:2376", host="0.0.0.0")
    assert place.target.url() == f"http://engine.example:{place.port}"
    place.reopen(url="https://shop.example/hello")
    assert place.target.url() == "https://shop.example/hello"


def test_no_engine_is_an_error_that_names_it(place: DockerPlace) -> None:
    place.reopen(engine="unix:///nowhere/docker.sock")
    with pytest.raises(TargetError, match="unix:///nowhere/docker.sock failed"):
        place.target.record()
