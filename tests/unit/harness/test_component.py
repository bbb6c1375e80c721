"""What the demonstration starts ends with it: whole, and also when nobody is left to stop it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from harness.component import Component, clean_environment
from harness.ports import any_free, first_free, is_free, is_listening
from harness.waiting import NotInTimeError, wait_until

ROOT = Path(__file__).parents[3]
# Starts a child in its own session and a plain one, says who they are, and waits.
FAMILY = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [subprocess.Popen(sleep, start_new_session=True), subprocess.Popen(sleep)]
print(*[child.pid for child in children], flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
ORPHAN = """
import os, signal, sys
from pathlib import Path
from harness.component import Component
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
component = Component("sleeper", sleep, os.environ, Path(sys.argv[1]))
component.start()
print(component.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def started(code: str, tmp_path: Path) -> Component:
    component = Component("family", [sys.executable, "-c", code], clean_environment({}), tmp_path / "log")
    component.start()
    wait_until(lambda: component.log.read_text(), "it runs", timeout=20, explain=component.tail)
    return component


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_stopping_ends_the_whole_family_and_can_be_repeated(tmp_path: Path) -> None:
    component = started(FAMILY, tmp_path)
    family = [component.pid, *map(int, component.tail().split())]
    component.stop()
    component.stop()
    assert all(is_gone(pid) for pid in family if pid)
    assert component.pid is None


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    component = started(STUBBORN, tmp_path)
    pid = component.pid
    component.stop(grace=0.2)
    assert pid is not None and is_gone(pid)


def test_a_signal_reaches_the_whole_family(tmp_path: Path) -> None:
    component = started(FAMILY, tmp_path)
    family = list(map(int, component.tail().split()))
    component.send(signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, family)), "the family is gone", timeout=20)
    assert component.exit_code == -signal.SIGKILL
    component.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ORPHAN, str(tmp_path / "log")]
    ran = subprocess.run(
        argv, cwd=ROOT, env=clean_environment({}), capture_output=True, text=True, timeout=60
    )
    pid = int(ran.stdout)
    wait_until(lambda: is_gone(pid), "the orphan is gone", timeout=20)


def test_a_port_in_use_is_passed_over(tmp_path: Path) -> None:
    port = any_free()[0]
    server = Component(
        "server", [sys.executable, "-m", "http.server", str(port)], clean_environment({}), tmp_path / "log"
    )
    server.start()
    try:
        wait_until(lambda: is_listening(port), "it listens", timeout=20, explain=server.tail)
        assert not is_free(port)
        assert first_free(port) > port
    finally:
        server.stop()
    assert not is_listening(port)


def test_a_port_is_handed_out_once_whichever_process_asks() -> None:
    port = any_free()[0]
    assert first_free(port) > port
    assert len(set(any_free(20))) == 20
    ask = f"from harness.ports import first_free; print(first_free({port}))"
    asked = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(asked.stdout) > port


def test_waiting_in_vain_says_why() -> None:
    with pytest.raises(NotInTimeError, match=r"the light is on: not within 0 s\nthe bulb is broken"):
        wait_until(
            lambda: None, "the light is on", timeout=0, every=0.01, explain=lambda: "the bulb is broken"
        )
