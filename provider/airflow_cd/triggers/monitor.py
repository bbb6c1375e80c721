"""Goes on watching the release an environment runs, after the pipeline that deployed it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_cd.model.environment import Environment
from airflow_cd.model.health import Alarm, HealthCheck, MonitorSettings, Verdict
from airflow_cd.triggers.git_heads import backoff
from airflow_cd.triggers.health import http_client, take_sample

if TYPE_CHECKING:
    import httpx
    from airflow.sdk.types import Logger

    from airflow_cd.targets.record import Record

_FIRED = "alarm"
# How long after the end of its longest health check a pipeline may take to judge and to roll back.
_PIPELINE_SECONDS = 120.0


class MonitorTrigger(BaseEventTrigger):
    """
    Fires when the release that an environment runs goes bad within its bake time; once per deployment.

    The target's record says what runs. A release is watched once it was healthy, or when its pipeline must
    have judged it: until then a bad release is the pipeline's to roll back. A service, target or triggerer
    that is gone for a while costs nothing but that while.

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
            if verdict is None or not await watch.still_runs(record):
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
        self._target = open_environment(service, environment)
        self._checks = [monitor.check(check) for check in environment.health]
        self._bake_time = monitor.bake_time.total_seconds()
        self._judged_after = _PIPELINE_SECONDS + max(
            (check.timeout.total_seconds() for check in environment.health), default=0.0
        )
        self._interval = poll_interval
        self._name = f"{service} in {environment.name}"
        self._log = log
        self._failures = 0

    async def next_release(self, after: int) -> Record:
        """Wait for a deployment of a later generation whose bake time is not over."""
        while True:
            record = await self._record()
            if record is not None and record.current is not None and record.generation > after:
                if _age(record) < self._bake_time:
                    return record
            await asyncio.sleep(backoff(self._interval, self._failures))

    async def still_runs(self, record: Record) -> bool:
        """Return whether nothing was deployed or rolled back since; an alarm about the past helps nobody."""
        now = await self._record()
        return now is None or now.generation == record.generation

    async def until_bad(self, record: Record) -> Verdict | None:
        """Watch until the verdict is bad; ``None`` when the bake time is over, or something else runs."""
        url = await asyncio.to_thread(self._target.url)
        if url is None:
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
        alarm = Alarm(check)
        for number in range(1, 10**9):
            sample = await take_sample(check, url, client)
            elapsed = time.monotonic() - began
            was_armed = alarm.armed
            alarm.armed = was_armed or age + elapsed > self._judged_after
            if (verdict := alarm.add(sample, elapsed)) is not None:
                return verdict
            if alarm.armed and not was_armed:
                self._log.info("%s: failures of generation %d count now", self._name, generation)
            due = began + number * check.interval.total_seconds()
            await asyncio.sleep(max(due - time.monotonic(), 0.01))
        raise AssertionError("a watch ends with its bake time")

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
            record = await asyncio.to_thread(self._target.record)
        except Exception as error:  # whatever it is, the watch goes on
            self._failures += 1
            self._log.warning("%s: cannot read what runs: %s", self._name, error)
            return None
        self._failures = 0
        return record


def _age(record: Record) -> float:
    """Return the seconds since the deployment, by the clock."""
    assert record.current is not None
    return (datetime.now(timezone.utc) - record.current.deployed_at).total_seconds()
