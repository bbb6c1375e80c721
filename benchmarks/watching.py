"""
The processes of the benchmark ``waiting``: a service, and what watches it.

``trigger`` is Airflow's own ``TriggerRunner`` with one ``HealthTrigger`` per check; only its pipe to the
triggerer is missing, from which it would learn which triggers to run. ``loop`` is the same requests by bare
httpx in bare asyncio. Both begin a fifth of the checks every second, as five seconds' worth of deployments
would, and print the CPU seconds of the process, the samples, and the seconds each was late, between the
warm-up and the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

INTERVAL = 5.0
BATCHES = int(INTERVAL)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Service(asyncio.Protocol):
    """Answers every request alike."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        self._transport.write(_ANSWER * len(requests))
        if any(b"connection: close" in request.lower() for request in requests):
            self._transport.close()


class Log:
    """When each check's samples began."""

    def __init__(self) -> None:
        self._began: dict[str, list[float]] = defaultdict(list)

    def add(self, check: str) -> None:
        self._began[check].append(time.monotonic())

    def lateness(self, since: float) -> list[float]:
        """Return the seconds by which samples since then began later than their first one's time says."""
        return [
            at - (times[0] + number * INTERVAL)
            for times in self._began.values()
            for number, at in enumerate(times)
            if at >= since
        ]


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0, backlog=5000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def trigger(url: str, checks: int, log: Log, measured: Awaitable[None]) -> None:
    from airflow.executors.workloads import RunTrigger  # type: ignore[attr-defined]
    from airflow.jobs.triggerer_job_runner import TriggerRunner, messages
    from airflow.models.trigger import Trigger

    from airflow_cd.model.health import HealthCheck
    from airflow_cd.triggers import health

    def workload(number: int) -> RunTrigger:
        # It never becomes healthy while this runs.
        check = {"http": f"/{number}", "interval": INTERVAL, "healthy_after": 10**6, "timeout": "1d"}
        classpath, kwargs = health.HealthTrigger.of([HealthCheck.model_validate(check)], url).serialize()
        return RunTrigger(id=number, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs))

    workloads = [workload(number) for number in range(checks)]
    batches = [workloads[number::BATCHES] for number in range(BATCHES)]
    take_sample = health.take_sample

    async def noted(check: HealthCheck, *args: Any) -> Any:
        log.add(check.name)
        return await take_sample(check, *args)

    health.take_sample = noted  # type: ignore[assignment]

    class Runner(TriggerRunner):
        async def init_comms(self) -> None:
            self.comms_decoder: Any = type("Comms", (), {"_reader_task": asyncio.Future()})

        async def asend(self, msg: Any) -> Any:
            if msg.events or msg.failures or msg.finished:
                raise SystemExit(f"a watch ended: {msg}")
            batch = batches.pop(0) if batches else []
            return messages.TriggerStateSync(to_create=batch, to_cancel=set())

    runner = Runner()  # type: ignore[no-untyped-call]
    running = asyncio.create_task(runner.arun())  # type: ignore[no-untyped-call]
    await asyncio.wait([running, asyncio.ensure_future(measured)], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()


async def loop(url: str, checks: int, log: Log, measured: Awaitable[None]) -> None:
    import ssl

    import httpx

    context = ssl.create_default_context()

    async def watch(number: int) -> None:
        # One client each: the connections of a shared one are gone through for every request.
        options: Any = {"verify": context, "trust_env": False, "timeout": None}
        async with httpx.AsyncClient(headers={"Connection": "close"}, **options) as client:
            first = time.monotonic()
            for n in range(1, 10**9):
                log.add(str(number))
                response = await client.get(f"{url}/{number}")
                assert response.status_code == 200
                await asyncio.sleep(max(first + n * INTERVAL - time.monotonic(), 0.01))

    measuring = asyncio.ensure_future(measured)
    tasks = []
    for batch in range(BATCHES):
        tasks += [asyncio.create_task(watch(number)) for number in range(batch, checks, BATCHES)]
        await asyncio.sleep(1)
    await asyncio.wait([measuring, *tasks], return_when=asyncio.FIRST_COMPLETED)


async def measure(
    watch: Callable[[str, int, Log, Awaitable[None]], Awaitable[None]], args: argparse.Namespace
) -> None:
    log = Log()
    cpu, since = 0.0, 0.0

    async def measured() -> None:
        nonlocal cpu, since
        await asyncio.sleep(args.warm_up)
        cpu, since = time.process_time(), time.monotonic()
        await asyncio.sleep(args.seconds)
        cpu = time.process_time() - cpu

    await watch(args.url, args.checks, log, measured())
    late = log.lateness(since)
    result = {
        "cpu": cpu,
        "seconds": time.monotonic() - since,
        "samples": len(late),
        "late_median": statistics.median(late),
        "late_p99": statistics.quantiles(late, n=100)[98],
    }
    print("RESULT", json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["serve", "trigger", "loop"])
    parser.add_argument("--url", default="")
    parser.add_argument("--checks", type=int, default=1000)
    parser.add_argument("--warm-up", type=float, default=12.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    if args.what == "serve":
        asyncio.run(serve())
    else:
        asyncio.run(measure({"trigger": trigger, "loop": loop}[args.what], args))


if __name__ == "__main__":
    main()
