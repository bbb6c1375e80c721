"""Who else wants the same place: two releases for one environment, and a stranger on its port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from harness.airflow import RunningAirflow
from harness.ports import any_free, is_listening
from harness.runs import Run
from harness.waiting import wait_until
from tests.integration.trapped import TrappedService

pytestmark = [
    pytest.mark.scheduler,
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
]

MakeService = Callable[..., TrappedService]
ONE = ("production",)
DEPLOY = "production.deploy"


def test_two_releases_at_the_same_moment(trapped: MakeService) -> None:
    shout = trapped("deployment", environments=ONE)
    trap = shout.trap(f"{DEPLOY}.execute.begins")
    older = shout.run()
    newer = shout.run(shout.commit("newer"))
    trap.caught(2, explain=newer.explain)
    trap.remove()
    newer.wait_for("success")
    older.wait_for("success")
    first = older.states()[DEPLOY]
    assert first in ("success", "skipped")
    deployed_both = first == "success"
    shout.expect_one_deployment(newer, "newer", generation=2 if deployed_both else 1)
    previous = [one.release.digest for one in shout.record().previous]
    assert previous == ([older.xcom("package")["digest"]] if deployed_both else [])


@pytest.mark.parametrize("first", ["older", "newer"])
def test_a_release_that_comes_while_another_is_deployed(trapped: MakeService, first: str) -> None:
    shout = trapped("deployment", environments=ONE)
    shas = {"older": shout.head, "newer": shout.commit("newer")}
    second = ({*shas} - {first}).pop()
    trap = shout.trap("app.production")
    runs: dict[str, Run] = {first: shout.run(shas[first])}
    trap.caught(explain=runs[first].explain)
    runs[second] = shout.run(shas[second])
    holder = f"{shout.dag_id}/{runs[first].run_id}"
    told = f"being deployed by another run: {holder}"
    runs[second].wait_for_task(DEPLOY, "deferred", timeout=90)
    # However long it takes: waiting uses up no try.
    wait_until(
        lambda: runs[second].log(DEPLOY, 1).count(told) >= 2,
        "the second one waits its turn",
        timeout=60,
        explain=runs[second].explain,
    )
    assert runs[second].states()[DEPLOY] in ("deferred", "scheduled", "queued", "running")
    trap.remove()
    for run in runs.values():
        run.wait_for("success")
    if first == "older":
        shout.expect_one_deployment(runs["newer"], "newer", generation=2)
        assert [one.actor for one in shout.record().previous] == [holder]
    else:
        assert runs["older"].states()[DEPLOY] == "skipped"
        shout.expect_one_deployment(runs["newer"], "newer")


def test_a_stranger_has_the_port(trapped: MakeService, airflow: RunningAirflow) -> None:
    shout = trapped("deployment", environments=ONE)
    shout.run().wait_for("success")
    old, new = shout.ports["production"], any_free()[0]
    argv = [sys.executable, "-m", "http.server", str(new), "--bind", "127.0.0.1"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as stranger:
        wait_until(lambda: is_listening(new), "the port is taken", timeout=20)
        shout.move(new)
        run = shout.run(shout.commit("second"))
        run.wait_for("failed")
        assert f"cannot listen on 127.0.0.1:{new}" in run.log(DEPLOY)
        assert f"(process {stranger.pid}, " in run.log(DEPLOY)
        assert shout.served() == "first"
        assert shout.record().generation == 1
        shout.expect_nothing_left()
        stranger.kill()
    shout.ports["production"] = new
    airflow.api.clear(shout.dag_id, run.run_id, DEPLOY, downstream=True)
    wait_until(lambda: run.state != "failed", "the run goes on", timeout=60)
    run.wait_for("success")
    shout.expect_one_deployment(run, "second", generation=2)
    assert not is_listening(old)
