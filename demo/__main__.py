"""
The main job, shown for real: ``make demo``.

On a terminal it waits for a person's approval and stays up until Ctrl-C. Without one, or with ``APPROVE=1``,
approves by itself and ends: with exit code 0 only if every step was seen, and with nothing left running.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import FrameType

from filelock import FileLock, Timeout
from harness.airflow import RunningAirflow
from harness.ports import first_free, is_listening
from harness.waiting import wait_until
from rich.console import Console

from airflow_cd.targets.local.target import root_of, shutdown
from demo.board import Board
from demo.story import Story
from demo.workshop import ROOT, Workshop

FOLDER = ROOT / ".demo"
LOCK = "lock"
_SETTINGS = {
    # Unpaused from the start, the branches are watched as soon as the DAGs are there.
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # Nobody changes the DAG files while this runs.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
}


def main() -> int:
    """Run the demonstration and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else 140)
    person = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("APPROVE") != "1"
    lock = _lock()
    _start_afresh()
    workshop = Workshop(FOLDER)
    workshop.prepare()
    airflow = RunningAirflow(
        FOLDER / "airflow", dags_folder=workshop.dags, api_port=first_free(8080), extra_config=_SETTINGS
    )
    board = Board(console)
    failure: BaseException | None = None
    began = time.monotonic()
    try:
        _show(airflow, workshop, board, person)
        console.print(board.table())
        console.print(f"All of it observed in {time.monotonic() - began:.0f} s.")
        if person:
            _stay_up(airflow, workshop, console)
    except BaseException as error:  # Ctrl-C too: whatever ends it, everything is stopped first
        failure = error
    left = _stop(airflow, workshop)
    lock.release()
    return _conclude(failure, left, board, console)


def _show(airflow: RunningAirflow, workshop: Workshop, board: Board, person: bool) -> None:
    with board.live():
        with board.step("airflow", "started") as step:
            airflow.start()
            step.seen = f"{airflow.url} (user admin, password {airflow.password('admin')})"
        with board.step("airflow", "DAGs hello_delivery and shout_deployment there") as step:
            wanted = {"hello_delivery", "shout_deployment"}
            wait_until(lambda: wanted <= set(airflow.api.dag_ids()), "the DAGs are there", timeout=60)
        stop = threading.Event()
        story = Story(airflow, workshop, board, person=person, stop=stop)
        _side_by_side([story.hello, story.shout], stop)


def _side_by_side(parts: list[Callable[[], None]], stop: threading.Event) -> None:
    """Run the parts in threads; the first failure, or Ctrl-C, ends the waiting of the other."""
    with ThreadPoolExecutor(len(parts)) as pool:
        futures = [pool.submit(part) for part in parts]
        try:
            for done in as_completed(futures):
                done.result()
        except BaseException:
            stop.set()
            # What the other part stumbles over now is a consequence.
            for future in futures:
                future.exception()
            raise


def _lock() -> FileLock:
    """Keep the folder to this process. :raises SystemExit: another demonstration uses it"""
    FOLDER.mkdir(exist_ok=True)
    lock = FileLock(FOLDER / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SystemExit(f"A demonstration is running in {FOLDER} already: stop that one first.") from None
    return lock


def _start_afresh() -> None:
    """Remove what the demonstration before left; if it was killed, its services may still run."""
    shutdown(root_of(FOLDER / "airflow" / "cd"))
    for path in FOLDER.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path)


def _stay_up(airflow: RunningAirflow, workshop: Workshop, console: Console) -> None:
    console.print(
        f"\nAirflow stays up at {airflow.url} (admin / {airflow.password('admin')}).\n"
        f"Repositories to play with: {workshop.folder / 'work'}. Ctrl-C stops everything.",
        soft_wrap=True,
    )
    while True:
        signal.pause()


def _stop(airflow: RunningAirflow, workshop: Workshop) -> list[int]:
    """Stop everything and return the ports something still listens on."""
    # A second Ctrl-C must not leave half of it running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    airflow.stop()
    shutdown(root_of(FOLDER / "airflow" / "cd"))
    ports = [airflow.ports.api, *workshop.ports.values()]
    return [*airflow.left_listening(), *(port for port in ports if is_listening(port))]


def _conclude(failure: BaseException | None, left: list[int], board: Board, console: Console) -> int:
    if failure is not None and not isinstance(failure, KeyboardInterrupt):
        console.print(board.table())
        console.print(f"FAILED: {failure}", markup=False, soft_wrap=True)
        console.print(f"Logs: {FOLDER / 'airflow' / 'components'} and {FOLDER / 'airflow' / 'logs'}")
        return 1
    if left:
        console.print(f"FAILED: something still listens on {left}")
        return 1
    console.print("Everything that was started is stopped; nothing is left listening.")
    finished = bool(board.steps) and all(step.state == "done" for step in board.steps)
    return 0 if failure is None or finished else 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
