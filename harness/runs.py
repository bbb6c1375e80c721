"""Following one DAG run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection
from typing import Any

import httpx

from harness.api import AirflowApi, ApiError, Json
from harness.waiting import wait_until

_ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")


class UnexpectedStateError(Exception):
    """Raised when a task or a run ended otherwise than it should."""


class Run:
    """
    One run of a DAG.

    :param stop: ends every wait when it is set
    """

    # Seconds between two looks. Benchmarks look more rarely: each one takes time from what they measure.
    look_every = 0.2
    # How much longer than usual things may take: tests run beside others.
    patience = 1.0

    def __init__(
        self, api: AirflowApi, dag_id: str, run_id: str, stop: threading.Event | None = None
    ) -> None:
        self.api, self.dag_id, self.run_id, self._stop = api, dag_id, run_id, stop

    @classmethod
    def triggered(cls, api: AirflowApi, dag_id: str, conf: Json | None = None) -> Run:
        """Start a run by hand."""
        return cls(api, dag_id, api.trigger(dag_id, conf))

    @classmethod
    def of_commit(
        cls,
        api: AirflowApi,
        dag_id: str,
        sha: str,
        *,
        timeout: float = 60,
        stop: threading.Event | None = None,
    ) -> Run:
        """
        Wait for the run that a push started.

        :raises NotInTimeError: there is none before the deadline
        """
        seen: set[str] = set()

        def find() -> str | None:
            for run in api.dag_runs(dag_id):
                run_id = run["dag_run_id"]
                # Airflow 3.3.2 answers the question for a queued run's events with an internal error.
                if run["start_date"] is None:
                    continue
                if run_id not in seen and _newest_revision(api, dag_id, run_id) == sha:
                    return str(run_id)
                seen.add(run_id)
            return None

        def explain() -> str:
            broken = [f"{error['filename']}: {error['stack_trace']}" for error in api.import_errors()]
            return "\n".join([f"runs of {dag_id}: {sorted(seen) or 'none'}", *broken])

        found = wait_until(
            find,
            f"a run of {dag_id} for commit {sha[:8]}",
            timeout=timeout,
            every=cls.look_every,
            explain=explain,
            stop=stop,
        )
        return cls(api, dag_id, found, stop)

    @property
    def url(self) -> str:
        """Return the page of this run."""
        return f"{self.api.base_url}/dags/{self.dag_id}/runs/{self.run_id}"

    @property
    def state(self) -> str:
        """Return the run's state."""
        return str(self.api.dag_run(self.dag_id, self.run_id)["state"])

    def states(self) -> dict[str, str | None]:
        """Return the state of every task."""
        tasks = self.api.task_instances(self.dag_id, self.run_id)
        return {task_id: task["state"] for task_id, task in tasks.items()}

    def log(self, task_id: str, try_number: int | None = None) -> str:
        """Return a task's log."""
        return self.api.task_log(self.dag_id, self.run_id, task_id, try_number)

    def xcom(self, task_id: str, key: str = "return_value") -> Any:
        """Return what a task left under ``key``, or ``None``."""
        return self.api.xcom(self.dag_id, self.run_id, task_id, key)

    def links(self, task_id: str) -> dict[str, str | None]:
        """Return a task's extra links."""
        return self.api.links(self.dag_id, self.run_id, task_id)

    def mark(self, task_id: str, new_state: str, api: AirflowApi | None = None) -> None:
        """Mark a task as the user of ``api`` (or of this run) would in the grid."""
        (api or self.api).mark(self.dag_id, self.run_id, task_id, new_state)

    def answer(self, task_id: str, option: str, api: AirflowApi | None = None, **inputs: str) -> None:
        """Answer an approval as the user of ``api`` (or of this run)."""
        (api or self.api).answer(self.dag_id, self.run_id, task_id, option, **inputs)

    def question(self, task_id: str) -> Json:
        """Return what an approval asks."""
        return self.api.question(self.dag_id, self.run_id, task_id)

    def wait_for_task(
        self, task_id: str, wanted: str | Collection[str] = "success", *, timeout: float = 60
    ) -> str:
        """
        Wait until a task is in the wanted state (or one of them) and return that.

        :raises UnexpectedStateError: it ended in another state, or the run ended before
        :raises NotInTimeError: neither happened before the deadline
        """
        states = {wanted} if isinstance(wanted, str) else set(wanted)

        looks = itertools.count()

        def probe() -> str | None:
            # Before its tasks, which change no more then; and rarely, since mostly they tell it all.
            run_ended = next(looks) % 5 == 4 and self.state in _ENDED
            state = self.states().get(task_id)
            if state in states:
                return state
            if state in _ENDED or run_ended:
                raise UnexpectedStateError(
                    f"{self.dag_id}: {task_id} is {state}, expected {'/'.join(sorted(states))}\n"
                    f"{self.explain()}"
                )
            return None

        what = f"{self.dag_id}: {task_id} is {'/'.join(sorted(states))}"
        return self._wait(probe, what, timeout)

    def wait_for(self, wanted: str = "success", *, timeout: float = 120) -> None:
        """
        Wait until the run has ended.

        :raises UnexpectedStateError: it ended in another state
        :raises NotInTimeError: it did not end before the deadline
        """

        def probe() -> str | None:
            state = self.state
            return state if state in _ENDED else None

        what = f"{self.dag_id}: the run is {wanted}"
        state = self._wait(probe, what, timeout)
        if state != wanted:
            raise UnexpectedStateError(f"{what}: it is {state}\n{self.explain()}")

    def _wait(self, probe: Callable[[], str | None], what: str, timeout: float) -> str:
        return wait_until(
            probe,
            what,
            timeout=timeout * self.patience,
            every=self.look_every,
            explain=self.explain,
            stop=self._stop,
        )

    def explain(self) -> str:
        """Return the tasks' states and the ends of the logs of those that did not go well."""
        try:
            states = self.states()
            text = [f"{self.dag_id} {self.run_id}: " + ", ".join(f"{k}={v}" for k, v in states.items())]
            for task_id, state in states.items():
                if state in ("failed", "up_for_retry", "running", "deferred"):
                    tail = self.log(task_id).splitlines()[-15:]
                    text += [f"--- log of {task_id} ({state})", *tail]
        except (ApiError, httpx.HTTPError) as error:
            return f"(Airflow does not tell more: {error})"
        return "\n".join(text)


def _newest_revision(api: AirflowApi, dag_id: str, run_id: str) -> str | None:
    """Return the commit that a run's newest triggering event is about."""
    events = sorted(api.triggering_events(dag_id, run_id), key=lambda event: event["timestamp"])
    payload = (events[-1].get("extra") or {}).get("payload") if events else None
    return payload.get("revision") if isinstance(payload, dict) else None
