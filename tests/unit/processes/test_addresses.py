"""Which hosts may be asked, and how their names are looked up."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from airflow_cd.processes import addresses
from airflow_cd.processes.addresses import AddressDeniedError, UnresolvedError, resolve

DENIED = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fe80::1%1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
]


def resolved(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Let every name have these addresses."""

    def getaddrinfo(host: Any, port: Any, **kwargs: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", DENIED)
def test_metadata_and_link_local_addresses_are_denied(address: str) -> None:
    with pytest.raises(AddressDeniedError, match="link-local or metadata address"):
        asyncio.run(resolve(address, 80))


@pytest.mark.parametrize("address", DENIED)
def test_a_name_for_one_is_denied_too(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, "192.0.2.1", address)
    with pytest.raises(AddressDeniedError, match=r"metadata\.example"):
        asyncio.run(resolve("metadata.example", 80))


# What a C library reads as an address although it does not look like one.
@pytest.mark.parametrize("written", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"])
def test_other_ways_of_writing_one_are_denied_too(written: str) -> None:
    with pytest.raises(AddressDeniedError):
        asyncio.run(resolve(written, 80))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "fd00::1", "100.64.0.1", "203.0.113.9"])
def test_others_are_not(address: str) -> None:
    assert asyncio.run(resolve(address, 80)) == [address]


def test_the_configuration_allows_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CD__ALLOWED_ADDRESSES", "169.254.20.10, 192.0.0.192/32")
    assert asyncio.run(resolve("169.254.20.10", 53)) == ["169.254.20.10"]
    assert asyncio.run(resolve("192.0.0.192", 80)) == ["192.0.0.192"]
    with pytest.raises(AddressDeniedError):
        asyncio.run(resolve("169.254.169.254", 80))


def test_a_resolver_that_fails_is_told_from_a_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(errno: int) -> Any:
        def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            raise socket.gaierror(errno, "what the resolver says")

        return getaddrinfo

    monkeypatch.setattr(socket, "getaddrinfo", failing(socket.EAI_AGAIN))
    with pytest.raises(UnresolvedError, match="shop cannot be looked up: what the resolver says"):
        asyncio.run(resolve("shop", 80))
    monkeypatch.setattr(socket, "getaddrinfo", failing(socket.EAI_NONAME))
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve("shop", 80))


def test_a_slow_name_keeps_one_thread_and_nobody_elses_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), []

    def getaddrinfo(host: str, port: Any, **kwargs: Any) -> Any:
        asked.append(host)
        if host == "slow.example":
            assert answered.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def scenario() -> None:
        slow = [asyncio.create_task(resolve("slow.example", 80)) for _ in range(100)]
        assert await asyncio.wait_for(resolve("fast.example", 80), 20) == ["192.0.2.1"]
        # One of those who wait gives up: the others get their answer all the same.
        slow[0].cancel()
        answered.set()
        assert await asyncio.gather(*slow[1:]) == [["192.0.2.1"]] * 99

    asyncio.run(scenario())
    assert asked.count("slow.example") == 1
    assert not addresses._looking
