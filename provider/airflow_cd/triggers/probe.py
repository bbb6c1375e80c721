"""Takes one sample of a service's health. Whatever the service does, a sample ends in time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_cd.model.base import format_duration
from airflow_cd.model.health import HealthCheck
from airflow_cd.model.text import printable
from airflow_cd.model.verdict import Sample
from airflow_cd.processes.deadline import within
from airflow_cd.processes.environment import clean_environment

if TYPE_CHECKING:
    import httpx

_LONGEST_BODY = 1024 * 1024
_SHOWN = 80
_LONGEST_PROBLEM = 300


async def take_sample(check: HealthCheck, base_url: str, client: httpx.AsyncClient | None = None) -> Sample:
    """
    Look at the service once, as the check says. Never raises, and never outlasts ``sample_timeout``, but
    for the seconds in which what was ended may clear up.

    :param base_url: where the service answers
    :param client: HTTP client to use again and again; needed by ``http`` checks only
    """
    at, started = datetime.now(timezone.utc), time.monotonic()
    try:
        problem = await within(check.sample_timeout.total_seconds(), _look(check, base_url, client))
    except (asyncio.TimeoutError, TimeoutError):
        problem = f"no answer within {format_duration(check.sample_timeout)}"
    except Exception as error:  # a refused connection, a broken answer: all of it is what the sample saw
        problem = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    if problem is None and check.latency is not None and seconds > check.latency.total_seconds():
        problem = f"slower than {format_duration(check.latency)}"
    milliseconds = f"{seconds * 1000:.0f} ms"
    # The service, or whatever answers in its place, has a say in this.
    problem = problem and printable(problem, _LONGEST_PROBLEM)
    detail = f"{check.name}: {problem} (after {milliseconds})" if problem else f"{check.name}: {milliseconds}"
    return Sample(at=at, ok=problem is None, seconds=round(seconds, 6), detail=detail)


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
        content = b""
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _LONGEST_BODY:
                break
    if response.status_code != check.status:
        return f"HTTP {response.status_code}, expected {check.status}"
    if check.body is not None and check.body not in content.decode("utf-8", "replace"):
        return f"the answer lacks {check.body[:_SHOWN]!r}"
    return None


async def _tcp(address: str, base_url: str) -> str | None:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host or urlsplit(base_url).hostname, int(port))
    writer.close()
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
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it ended in this moment
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return None
    words = output.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
    return f"exit code {process.returncode}: {words[0][:_SHOWN]}"
