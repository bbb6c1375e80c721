"""Samples health checks in the triggerer until they are judged."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_cd.model.base import format_duration
from airflow_cd.model.health import HealthCheck, Judge, Sample, Verdict
from airflow_cd.model.text import printable
from airflow_cd.processes.addresses import AddressDeniedError, UnresolvedError, resolve
from airflow_cd.processes.deadline import within
from airflow_cd.processes.environment import clean_environment
from airflow_cd.processes.http_reading import HEADERS, UnreadableAnswerError, read_answer
from airflow_cd.triggers.defer_delay import defer_delay_seconds

if TYPE_CHECKING:
    import httpx

_LONGEST_BODY = 1024 * 1024
_KEPT_OUTPUT = 16 * 1024
_SHOWN = 80
_LONGEST_PROBLEM = 300
# A timer that fires so late had no turn on the event loop, or its process had no processor.
_STALLED_SECONDS = 1.0
# The network of this machine is down; it has no more files, memory or ports.
_OURS = {
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENOBUFS),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
}


async def take_sample(check: HealthCheck, base_url: str, client: httpx.AsyncClient | None = None) -> Sample:
    """
    Look at the service once, as the check says. Never raises, and never outlasts ``sample_timeout``, but
    for the seconds in which what was ended may clear up.

    :param base_url: where the service answers
    :param client: HTTP client to use again and again; needed by ``http`` checks only
    """
    at, started = datetime.now(timezone.utc), time.monotonic()
    longest, unknown = check.sample_timeout.total_seconds(), False
    due: list[float] = []
    timer = asyncio.get_running_loop().call_later(longest, lambda: due.append(time.monotonic()))
    try:
        problem = await within(longest, _look(check, base_url, client))
    except (asyncio.TimeoutError, TimeoutError):
        problem = f"no answer within {format_duration(check.sample_timeout)}"
        if due and (late := due[0] - started - longest) > _STALLED_SECONDS:
            problem, unknown = f"this process was busy for {late:.1f} s with something else", True
    except Exception as error:  # a refused connection, a broken answer: all of it is what the sample saw
        problem, unknown = _described(error), _is_ours(error)
    finally:
        timer.cancel()
    seconds = time.monotonic() - started
    if problem is None and check.latency is not None and seconds > check.latency.total_seconds():
        problem = f"slower than {format_duration(check.latency)}"
    milliseconds = f"{seconds * 1000:.0f} ms"
    # The service, or whatever answers in its place, has a say in this.
    problem = problem and printable(problem, _LONGEST_PROBLEM)
    detail = f"{check.name}: {problem} (after {milliseconds})" if problem else f"{check.name}: {milliseconds}"
    return Sample(at=at, ok=problem is None, seconds=round(seconds, 6), detail=detail, unknown=unknown)


def _is_ours(error: BaseException | None) -> bool:
    """Return whether the error says nothing about the service, and whatever it wraps neither."""
    while error is not None:
        if isinstance(error, (UnresolvedError, AddressDeniedError)):
            return True
        if isinstance(error, OSError) and error.errno in _OURS:
            return True
        error = error.__cause__ or error.__context__
    return False


def _described(error: Exception) -> str:
    """Return an error in words that are not the server's: an answer never gets into a message."""
    import httpx

    if isinstance(error, (httpx.ProtocolError, httpx.DecodingError)):
        return "the answer is no HTTP"
    return f"{type(error).__name__}: {error}"


async def _look(check: HealthCheck, base_url: str, client: httpx.AsyncClient | None) -> str | None:
    """Return what is wrong, or ``None``."""
    if check.http is not None:
        assert client is not None
        return await _http(check, base_url, client)
    if check.tcp is not None:
        return await _tcp(str(check.tcp), base_url)
    return await _command(check.command or (), base_url)


def url_of(check: HealthCheck, base_url: str) -> str:
    """Return what an ``http`` check asks for."""
    path = check.http or "/"
    return path if "://" in path else f"{base_url}/{path.lstrip('/')}"


async def _http(check: HealthCheck, base_url: str, client: httpx.AsyncClient) -> str | None:
    async with client.stream("GET", url_of(check, base_url)) as response:
        if response.status_code != check.status:
            return f"HTTP {response.status_code}, expected {check.status}"
        try:
            content = await read_answer(response, _LONGEST_BODY, truncate=True)
        except UnreadableAnswerError as error:
            return str(error) if check.body is not None else None
    if check.body is not None and check.body not in content.decode("utf-8", "replace"):
        return f"the answer lacks {check.body[:_SHOWN]!r}"
    return None


async def _tcp(address: str, base_url: str) -> str | None:
    host, _, port = address.rpartition(":")
    found = await resolve(host.strip("[]") or urlsplit(base_url).hostname or "", int(port))
    for place in found:
        try:
            _, writer = await asyncio.open_connection(place, int(port))
        except OSError:
            if place == found[-1]:
                raise
        else:
            writer.close()
            break
    return None


async def _command(argv: tuple[str, ...], base_url: str) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={**clean_environment(), "CD_URL": base_url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = await _end_of(process.stdout)
        await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it ended in this moment
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return None
    words = output.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
    return f"exit code {process.returncode}: {words[0][:_SHOWN]}"


async def _end_of(stream: asyncio.StreamReader | None) -> bytes:
    """Read all output, and return the end of it: a command may write without end until it is killed."""
    assert stream is not None
    kept = b""
    while chunk := await stream.read(_KEPT_OUTPUT):
        kept = (kept + chunk)[-_KEPT_OUTPUT:]
    return kept


# A line of the log costs a fifth of a sample.
_PROGRESS_SECONDS = 30.0
# To defer costs the start of another process, a round of the triggerer and one of the scheduler, and with
# Airflow 3.3.2 a pause besides (see HealthTrigger.of): 3 s and more, in which a slot is held for a good part.
_ON_WORKER_SECONDS = 3.0


class HealthTrigger(BaseTrigger):
    """
    Samples all checks side by side and fires once: healthy when all are, unhealthy as soon as one is.

    The event has ``healthy``, ``reason`` and ``verdicts`` (check name -> verdict as JSON). After a restart
    of the triggerer samples are taken again, but the time until ``timeout`` goes on.

    :param checks: health checks as JSON
    :param base_url: where the service answers
    :param started_at: when the watch began, in seconds since the epoch
    :param settle: seconds from then until the event is fired at the earliest, see :meth:`of`
    """

    def __init__(
        self, checks: Sequence[dict[str, Any]], base_url: str, started_at: float, settle: float = 0.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's triggers are untyped
        self.checks = list(checks)
        self.base_url = base_url
        self.started_at = started_at
        self.settle = settle

    @classmethod
    def of(cls, checks: Sequence[HealthCheck], base_url: str) -> HealthTrigger:
        """
        Return a watch of these checks that begins now.

        Its event waits until Airflow has noticed that the task deferred: else a healthy release would fail
        for want of retries (see :func:`~airflow_cd.triggers.defer_delay.defer_delay_seconds`).
        """
        made = [check.model_dump(mode="json") for check in checks]
        return cls(made, base_url, time.time(), defer_delay_seconds())

    def judge_now(self) -> dict[str, Any] | None:
        """
        Judge on the worker, if that takes no longer than giving its slot back and getting one again would.

        :return: what the event would say; ``None`` when it takes longer, and the task should defer
        """
        checks = [HealthCheck.model_validate(check) for check in self.checks]
        if max(check.shortest.total_seconds() for check in checks) > _ON_WORKER_SECONDS:
            return None

        async def judge() -> dict[str, Any]:
            return await within(_ON_WORKER_SECONDS, self.judge())

        try:
            return asyncio.run(judge())
        except (asyncio.TimeoutError, TimeoutError):
            return None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, from which the triggerer makes this trigger."""
        names = ("checks", "base_url", "started_at", "settle")
        return f"{__name__}.HealthTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch until there is a verdict."""
        summary = await self.judge()
        # Measured against the clock, but never longer than meant, should that have been set back.
        await asyncio.sleep(min(max(self.started_at + self.settle - time.time(), 0.0), self.settle))
        yield TriggerEvent(summary)

    async def judge(self) -> dict[str, Any]:
        """Watch until there is a verdict, and return what the event says of it."""
        checks = [HealthCheck.model_validate(check) for check in self.checks]
        # A clock that was set back must not make the watch last longer than it was meant to.
        already = max(time.time() - self.started_at, 0.0)
        async with AsyncExitStack() as stack:
            client = (
                await stack.enter_async_context(http_client(checks, self.base_url))
                if any(check.http for check in checks)
                else None
            )
            watches = [asyncio.create_task(self._watch(check, client, already)) for check in checks]
            try:
                verdicts = await _first_bad_or_all(watches)
            finally:
                for watch in watches:
                    watch.cancel()
                await asyncio.gather(*watches, return_exceptions=True)
        return _summary(checks, verdicts)

    async def _watch(self, check: HealthCheck, client: httpx.AsyncClient | None, already: float) -> Verdict:
        judge = Judge(check)
        began = time.monotonic() - min(already, _spare(check))
        first, shown = time.monotonic(), float("-inf")
        was_ok: bool | None = None
        for number in range(1, 10**9):
            sample = await take_sample(check, self.base_url, client)
            now = time.monotonic()
            verdict = judge.add(sample, now - began)
            if sample.ok != was_ok or now - shown > _PROGRESS_SECONDS:
                self.log.info("%s (%s)", sample.detail, judge.progress())
                was_ok, shown = sample.ok, now
            if verdict is not None:
                return verdict
            # Counted from the first sample: slow answers do not make the next ones late.
            await asyncio.sleep(max(first + number * check.interval.total_seconds() - time.monotonic(), 0.01))
        raise AssertionError("a watch ends by its timeout")


def _spare(check: HealthCheck) -> float:
    """
    Return how many seconds of the timeout may be over when a watch begins or goes on.

    What is left is enough to become healthy in. A clock that was set forward, or a triggerer that was down
    for longer than the timeout, says nothing about the service.
    """
    needed = check.interval * check.healthy_after + check.sample_timeout
    return max((check.timeout - needed).total_seconds(), 0.0)


def http_client(checks: Sequence[HealthCheck], base_url: str) -> httpx.AsyncClient:
    """
    Return the client of one watch of these checks; it follows no redirects.

    Each of its requests has a connection of its own, as a new user's would. A server that closes idle
    connections after as long as the interval is (5 s is a common default of both) would close a kept one
    while the next request is under way, and a healthy service would look bad every few samples.
    """
    import httpx

    from airflow_cd.processes.http_transport import GuardedTransport

    secure = any(check.http is not None and url_of(check, base_url).startswith("https:") for check in checks)
    return httpx.AsyncClient(
        transport=GuardedTransport(secure=secure),
        trust_env=False,
        follow_redirects=False,
        timeout=None,
        headers=HEADERS,
    )


async def _first_bad_or_all(watches: Sequence[asyncio.Task[Verdict]]) -> list[Verdict | None]:
    for done in asyncio.as_completed(list(watches)):
        if not (await done).healthy:
            break
    return [watch.result() if watch.done() else None for watch in watches]


def _summary(checks: Sequence[HealthCheck], verdicts: Sequence[Verdict | None]) -> dict[str, Any]:
    names = [check.name for check in checks]
    # The same path may be checked twice, say for its status and for its latency.
    keys = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    named = {key: verdict for key, verdict in zip(keys, verdicts, strict=True) if verdict is not None}
    bad = {name: verdict for name, verdict in named.items() if not verdict.healthy}
    shown = bad or named
    return {
        "healthy": not bad,
        "reason": "; ".join(f"{name}: {verdict.reason}" for name, verdict in shown.items()),
        "verdicts": {name: verdict.model_dump(mode="json") for name, verdict in named.items()},
    }
