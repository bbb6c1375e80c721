"""Goes on watching the release an environment runs, after the pipeline that deployed it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_cd.model.environment import Environment
from airflow_cd.model.health import Alarm, HealthCheck, MonitorSettings, Verdict
from airflow_cd.processes.blocking import in_threads_of
from airflow_cd.processes.deadline import within
from airflow_cd.triggers.git_heads import backoff
from airflow_cd.triggers.health import http_client, take_sample

if TYPE_CHECKING:
    import httpx
    from airflow.sdk.types import Logger

    from airflow_cd.model.health import Sample
    from airflow_cd.targets.record import Record

T = TypeVar("T")

_FIRED = "alarm"
# How long a target may take to say what runs.
_LOOK_SECONDS = 15.0
# How long after the end of its longest health check a pipeline may take to judge and to roll back.
_PIPELINE_SECONDS = 120.0


class MonitorTrigger(BaseEventTrigger):
    """
    Fires when the release that an environment runs goes bad within its bake time; once per deployment.

    The target's record says what runs. A release is watched once it was healthy, or when its pipeline must
    have judged it: until then a bad release is the pipeline's to roll back. A service, target or triggerer
    that is gone for a while costs nothing but that while: samples that could not be taken count for nothing,
    and while the target cannot say what runs there is no alarm, since that may be gone for the same reason.

    The payload has ``service``, ``environment``, ``generation``, ``digest``, ``version``, ``reason`` and
    ``samples`` (the last ones of the check that raised the alarm).

    :param service: name of the service
    :param environment: the environment's definition as JSON
    :param poll_interval: seconds between two looks at the target's record
    """

    # See GitHeadTrigger: that an alarm was raised is stored when its event was passed on.
    handover_seconds = 3.0

    def __init__(self, *, service: str, environment: dict[str, Any], poll_interval: float = 5.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.service = service
        self.environment = environment
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, from which the triggerer makes this trigger."""
        names = ("service", "environment", "poll_interval")
        return f"{__name__}.MonitorTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch one release after the other, for ever."""
        environment = Environment.model_validate(self.environment)
        watch = _Watch(self.service, environment, self.poll_interval, self.log)
        fired = await self._load()
        while True:
            record = await watch.next_release(after=fired)
            verdict = await watch.until_bad(record)
            if verdict is None or not await watch.still_runs(record, verdict):
                continue
            fired = record.generation
            yield TriggerEvent(self._payload(record, verdict))
            await asyncio.sleep(self.handover_seconds)
            await self._save(fired)

    def _payload(self, record: Record, verdict: Verdict) -> dict[str, Any]:
        assert record.current is not None
        release = record.current.release
        self.log.warning(
            "%s: %s is unhealthy in %s: %s",
            *(self.service, release.version, self.environment["name"], verdict.reason),
        )
        return {
            "service": self.service,
            "environment": self.environment["name"],
            "generation": record.generation,
            "digest": release.digest,
            "version": release.version,
            "reason": verdict.reason,
            "samples": [sample.model_dump(mode="json") for sample in verdict.samples],
        }

    async def _load(self) -> int:
        """Return the generation the last alarm was about. A second alarm about it would do no harm."""
        if self.asset_state_store is None:
            return 0
        try:
            value = await self.asset_state_store.aget(_FIRED)
        except Exception as error:
            self.log.warning("Cannot read which alarm was the last: %s", error)
            return 0
        return value if isinstance(value, int) else 0

    async def _save(self, generation: int) -> None:
        if self.asset_state_store is None:
            return
        try:
            await self.asset_state_store.aset(_FIRED, generation)
        except Exception as error:
            self.log.warning("Cannot store that there was an alarm: %s", error)


class _Watch:
    """The watch over one environment's releases."""

    def __init__(self, service: str, environment: Environment, poll_interval: float, log: Logger) -> None:
        from airflow_cd.releases.adapters import open_environment

        monitor = environment.monitor or MonitorSettings()
        self._target = open_environment(service, environment, looks_only=True)
        self._remote = environment.target.settings.remote
        self._checks = [monitor.check(check) for check in environment.health]
        self._bake_time = monitor.bake_time.total_seconds()
        self._judged_after = _PIPELINE_SECONDS + max(
            (check.timeout.total_seconds() for check in environment.health), default=0.0
        )
        self._interval = poll_interval
        self._name = f"{service} in {environment.name}"
        self._log = log
        self._failures = 0
        self._armed: set[tuple[int, str]] = set()

    async def next_release(self, after: int) -> Record:
        """Wait for a deployment of a later generation whose bake time is not over."""
        while True:
            record = await self._record()
            if record is not None and record.current is not None and record.generation > after:
                if _age(record) < self._bake_time:
                    return record
            await asyncio.sleep(backoff(self._interval, self._failures))

    async def still_runs(self, record: Record, verdict: Verdict) -> bool:
        """
        Return whether it is certain that nothing was deployed or rolled back since.

        An alarm about the past helps nobody; one while the target is gone would blame the release for it.
        """
        now = await self._record()
        if now is None:
            self._log.warning(
                "%s: no alarm while the target cannot say what runs, although the service is unhealthy: %s",
                *(self._name, verdict.reason),
            )
        return now is not None and now.generation == record.generation

    async def until_bad(self, record: Record) -> Verdict | None:
        """Watch until the verdict is bad; ``None`` when the bake time is over, or something else runs."""
        try:
            url = await self._asked(self._target.url)
        except Exception as error:  # whatever it is, the watch goes on
            self._failures += 1
            self._log.warning("%s: cannot read where it answers: %s", self._name, error)
            url = None
        if url is None:
            await asyncio.sleep(backoff(self._interval, self._failures))
            return None
        age, began = max(_age(record), 0.0), time.monotonic()
        self._log.info("%s: watching %s", self._name, url)
        async with http_client(self._checks, url) as client:
            tasks: list[asyncio.Task[Verdict | None]] = [
                asyncio.create_task(self._sample(check, record.generation, url, client, age, began))
                for check in self._checks
            ]
            tasks.append(asyncio.create_task(self._until_over(record, self._bake_time - age, began)))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return next((verdict for task in done if (verdict := task.result()) is not None), None)

    async def _sample(
        self,
        check: HealthCheck,
        generation: int,
        url: str,
        client: httpx.AsyncClient,
        age: float,
        began: float,
    ) -> Verdict | None:
        alarm, known = Alarm(check), True
        # A watch that was broken off while the target was gone goes on as it was.
        alarm.armed = (generation, check.name) in self._armed
        for number in range(1, 10**9):
            sample = await take_sample(check, url, client)
            elapsed = time.monotonic() - began
            was_armed = alarm.armed
            alarm.armed = was_armed or age + elapsed > self._judged_after
            if (verdict := alarm.add(sample, elapsed)) is not None:
                return verdict
            if alarm.armed and not was_armed:
                self._armed.add((generation, check.name))
                self._log.info("%s: failures of generation %d count now", self._name, generation)
            if known == sample.unknown:
                known = not sample.unknown
                self._report(known, sample)
            due = began + number * check.interval.total_seconds()
            await asyncio.sleep(max(due - time.monotonic(), 0.01))
        raise AssertionError("a watch ends with its bake time")

    def _report(self, known: bool, sample: Sample) -> None:
        if known:
            self._log.info("%s: samples can be taken again: %s", self._name, sample.detail)
        else:
            self._log.warning(
                "%s: cannot tell whether the service is healthy, so this is no reason to roll back: %s",
                *(self._name, sample.detail),
            )

    async def _until_over(self, record: Record, seconds: float, began: float) -> Verdict | None:
        while time.monotonic() - began < seconds:
            now = await self._record()
            if now is not None and now.generation != record.generation:
                break
            await asyncio.sleep(min(backoff(self._interval, self._failures), max(seconds, 0.0)))
        return None

    async def _record(self) -> Record | None:
        """Return the target's record, or ``None`` when it cannot be read."""
        try:
            record = await self._asked(self._target.record)
        except Exception as error:  # whatever it is, the watch goes on
            self._failures += 1
            reason = str(error) or f"no answer within {_LOOK_SECONDS:g} s"
            self._log.warning("%s: cannot read what runs: %s", self._name, reason)
            return None
        self._failures = 0
        return record

    async def _asked(self, ask: Callable[[], T]) -> T:
        return await within(_LOOK_SECONDS, in_threads_of(self._remote, ask))


def _age(record: Record) -> float:
    """Return the seconds since the deployment, by the clock."""
    assert record.current is not None
    return (datetime.now(timezone.utc) - record.current.deployed_at).total_seconds()
