"""
Host names of what is asked over the network: resolved in threads of their own, and never to metadata servers.

Addresses of a link, and those where clouds serve the credentials of a machine, are denied: a health check
or a metric with such an address would ask in the name of the worker. ``[cd] allowed_addresses`` names
exceptions.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from airflow_cd.processes.blocking import pool_of

_THREADS = 16
_looking: dict[tuple[str, int], Future[list[str]]] = {}

# Link-local, and what is not: AWS by IPv6, Google by IPv6, Alibaba, Azure's host agent, Oracle.
_DENIED = [
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
    )
]
_NAT64 = ip_network("64:ff9b::/96")


class AddressDeniedError(OSError):
    """Raised when a host is, or is called by, an address that nothing of ours may ask."""


class UnresolvedError(OSError):
    """Raised when a name could not be looked up, which says nothing about the host."""


async def resolve(host: str, port: int) -> list[str]:
    """
    Return the addresses of a host, in the order in which they should be tried.

    A name that takes long to look up keeps one thread busy, however many ask for it.

    :raises AddressDeniedError: one of them is denied
    :raises UnresolvedError: the resolver does not answer
    :raises socket.gaierror: there is no such name
    """
    if (literal := _literal(host)) is not None:
        _require_allowed(host, literal)
        return [host]
    key = (host, port)
    looking = _looking.get(key)
    if looking is None or looking.done():
        looking = _looking[key] = pool_of("names", _THREADS).submit(lookup, host, port)
        looking.add_done_callback(lambda _: _looking.pop(key, None))
    # Others may wait for the same answer: who is cancelled leaves it to them.
    return await asyncio.shield(asyncio.wrap_future(looking))


def lookup(host: str, port: int) -> list[str]:
    """Resolve as :func:`resolve` does, and block meanwhile."""
    if (literal := _literal(host)) is not None:
        _require_allowed(host, literal)
        return [host]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise
        raise UnresolvedError(f"{host} cannot be looked up: {error.strerror}") from error
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a host name") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if (literal := _literal(address)) is not None:
            _require_allowed(host, literal)
    return addresses


def _literal(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _require_allowed(host: str, address: IPv4Address | IPv6Address) -> None:
    meant = _embedded(address)
    if not any(meant in network for network in _DENIED):
        return
    from airflow.configuration import conf

    allowed = conf.get("cd", "allowed_addresses", fallback="").replace(",", " ").split()
    if any(meant in ip_network(text, strict=False) for text in allowed):
        return
    called = "" if host == str(meant) else f" ({host})"
    raise AddressDeniedError(
        f"{meant}{called} is a link-local or metadata address, which is not asked; [cd] allowed_addresses "
        "allows it"
    )


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    # The zone of a link (fe80::1%eth0) is no part of any network.
    return IPv6Address(int(address))
