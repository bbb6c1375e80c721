"""Configuration of Caddy (https://caddyserver.com/docs/json/), the proxy of local and Docker targets."""

from __future__ import annotations

from typing import Any

# What they share of the top level: nobody reconfigures a front while it runs.
SETTINGS: dict[str, Any] = {
    "admin": {"disabled": True, "config": {"persist": False}},
    "logging": {"logs": {"default": {"level": "WARN"}}},
}
GRACE_PERIOD = "10s"


def proxy_config(listen: str, upstream: str) -> dict[str, Any]:
    """
    Return a server that hands each request on to the address in a file, which is read again for each.

    :param listen: ``host:port``, the host may be empty
    :param upstream: path of the file with ``host:port``
    """
    handler = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"{{file.{upstream}}}"}],
        # Idle connections to an instance are closed soon, so that it counts as drained.
        "transport": {"protocol": "http", "keep_alive": {"enabled": True, "idle_timeout": "1s"}},
        "load_balancing": {"try_duration": "3s", "try_interval": "50ms"},
        "flush_interval": -1,
    }
    return {
        "listen": [listen],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": [{"handle": [handler]}],
    }
