"""What is shown: one service released by an approval, one by itself, and two ways of being rolled back."""

from __future__ import annotations

import threading

import httpx
from harness.airflow import RunningAirflow
from harness.runs import Run, UnexpectedStateError
from harness.waiting import wait_until

from demo.board import Board
from demo.workshop import HELLO, SHOUT, Workshop

APPROVE = "production.approve"
_STEP_SECONDS = 90.0
_DAY_SECONDS = 86_400.0


class Story:
    """
    The steps of both services, each observed from outside: over HTTP, or in Airflow's state.

    :param person: whether a person is there to approve; else the task is marked as the UI does it
    :param stop: ends all waiting when it is set
    """

    def __init__(
        self,
        airflow: RunningAirflow,
        workshop: Workshop,
        board: Board,
        *,
        person: bool,
        stop: threading.Event,
    ) -> None:
        self._airflow, self._workshop, self._board = airflow, workshop, board
        self._person, self._stop = person, stop

    def hello(self) -> None:
        """A commit goes to staging by itself and to production by a decision."""
        sha = self._workshop.push_example(HELLO)
        version = f"g{sha[:8]}"
        with self._board.step(HELLO, "commit pushed: built, tested, packaged") as step:
            run = self._run(HELLO, "delivery", sha)
            run.wait_for_task("package", timeout=_STEP_SECONDS)
            step.seen = f"commit {sha[:8]}"
        with self._board.step(HELLO, "staging serves it, healthy") as step:
            run.wait_for_task("staging.health", timeout=_STEP_SECONDS)
            step.seen = self._observe(HELLO, "staging", version)
        with self._board.step(HELLO, "approved for production") as step:
            run.wait_for_task(APPROVE, "awaiting_input", timeout=_STEP_SECONDS)
            self._nothing_served(HELLO, "production")
            step.seen = self._approve(run)
        with self._board.step(HELLO, "production serves it, healthy") as step:
            run.wait_for("success", timeout=_STEP_SECONDS)
            step.seen = self._observe(HELLO, "production", version)

    def shout(self) -> None:
        """A good commit reaches production by itself; a bad one does too, and is taken back."""
        good = self._workshop.push_example(SHOUT)
        with self._board.step(SHOUT, "commit pushed: in production by itself") as step:
            self._run(SHOUT, "deployment", good).wait_for("success", timeout=_STEP_SECONDS)
            step.seen = self._observe(SHOUT, "production", f"g{good[:8]}")
        bad = self._workshop.push_bad_commit()
        with self._board.step(SHOUT, "bad commit pushed: staging serves it") as step:
            run = self._run(SHOUT, "deployment", bad)
            run.wait_for_task("staging.health", timeout=_STEP_SECONDS)
            step.seen = self._observe(SHOUT, "staging", f"g{bad[:8]}")
        with self._board.step(SHOUT, "production unhealthy: rolled back, run failed") as step:
            # Seen on both sides of the rollback, else production might never have had the bad version.
            self._observe(SHOUT, "production", f"g{bad[:8]}", status=500, timeout=_STEP_SECONDS)
            run.wait_for("failed", timeout=_STEP_SECONDS)
            self._expect_rollback(run)
            seen = self._observe(SHOUT, "production", f"g{good[:8]}")
            step.seen = f"HTTP 500 by g{bad[:8]}; now {seen}"

        self._leak(good)

    def _leak(self, good: str) -> None:
        """A release whose pipeline succeeds goes bad afterwards, and is taken back all the same."""
        leak = self._workshop.push_leak()
        with self._board.step(SHOUT, "leaking commit pushed: in production, healthy") as step:
            self._run(SHOUT, "deployment", leak).wait_for("success", timeout=_STEP_SECONDS)
            step.seen = f"commit {leak[:8]}"
        with self._board.step(SHOUT, "it goes bad after its pipeline: rolled back") as step:
            api, dag_id = self._airflow.api, f"{SHOUT}_rollback"
            (found,) = wait_until(
                lambda: api.dag_runs(dag_id), f"a run of {dag_id}", timeout=_STEP_SECONDS, stop=self._stop
            )
            Run(api, dag_id, found["dag_run_id"], self._stop).wait_for("success", timeout=_STEP_SECONDS)
            step.seen = self._observe(SHOUT, "production", f"g{good[:8]}")

    def _run(self, service: str, pipeline: str, sha: str) -> Run:
        return Run.of_commit(
            self._airflow.api, f"{service}_{pipeline}", sha, timeout=_STEP_SECONDS, stop=self._stop
        )

    def _approve(self, run: Run) -> str:
        if not self._person:
            run.mark(APPROVE, "success")
            return "marked as success over the REST API"
        self._board.say(
            f"\n[bold]Approve hello for production:[/] {run.url}/tasks/{APPROVE}/required_actions\n"
            f"  log in as [bold]admin[/] with password [bold]{self._airflow.password('admin')}[/]; "
            "then choose Approve, or mark the task as success.\n"
        )
        run.wait_for_task(APPROVE, timeout=_DAY_SECONDS)
        return "by a person"

    def _observe(
        self, service: str, environment: str, version: str, *, status: int = 200, timeout: float = 10
    ) -> str:
        """Ask the service itself; what Airflow says is not enough."""
        url = self._workshop.url(service, environment)
        last = "nothing"

        def probe() -> str | None:
            nonlocal last
            response = httpx.get(url, trust_env=False, timeout=5)
            served = response.headers.get("X-Version", "")
            last = f"HTTP {response.status_code} by {served}"
            return response.text if response.status_code == status and version in served else None

        text = wait_until(
            probe,
            f"{url} serves {version} with HTTP {status}",
            timeout=timeout,
            explain=lambda: f"the last answer: {last}",
            stop=self._stop,
        )
        return f"{url} says {text.splitlines()[0]!r} ({version})"

    def _nothing_served(self, service: str, environment: str) -> None:
        url = self._workshop.url(service, environment)
        try:
            httpx.get(url, trust_env=False, timeout=5)
        except httpx.ConnectError:
            return
        raise UnexpectedStateError(f"{url} answers, although nobody has approved anything yet")

    def _expect_rollback(self, run: Run) -> None:
        states = run.states()
        wanted = {"production.health": "failed", "production.rollback": "success"}
        found = {task: states[task] for task in wanted}
        if found != wanted:
            raise UnexpectedStateError(f"expected {wanted}, found {found}\n{run.explain()}")
