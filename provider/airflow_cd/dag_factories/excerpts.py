"""
A services file as lines, of which a task that starts reads its service's alone.

The first line is what is not a service, then comes a line per service, and last the hash of all of them. A
line is a name, a hash, and JSON, with tabs between; JSON has no line breaks and no tabs of its own, so that
a name at the beginning of a line is the name of a line. Every hash starts from the key, which is that of
the services file's content: lines of another file do not pass for lines of this one.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

_NO_NAME, _END = b"null", b"end"


def pack(content: Any, key: bytes) -> bytes:
    """Return the content as lines. :raises ValueError: JSON cannot say all of it, or it has no services"""
    if not isinstance(content, dict) or not isinstance(content.get("services"), list):
        raise ValueError("there are no services")
    others = {name: value for name, value in content.items() if name != "services"}
    lines = [_line(_NO_NAME, others, key), *(_line(_name(one), one, key) for one in content["services"])]
    data = b"".join(lines)
    return data + b"\t".join((_END, _hash(key, data))) + b"\n"


def unpack(data: bytes, key: bytes) -> dict[str, Any]:
    """Return the content. :raises ValueError: a part is missing or damaged"""
    start = data.rfind(b"\n", 0, -1) + 1
    if data[start:] != b"\t".join((_END, _hash(key, data[:start]))) + b"\n":
        raise ValueError("not what was written")
    parts = [line.rpartition(b"\t")[2] for line in data[:start].splitlines()]
    others, *services = json.loads(b"[" + b",".join(parts) + b"]")
    return {**others, "services": services}


def unpack_one(data: bytes, key: bytes, name: str) -> dict[str, Any]:
    """
    Return the content with no service but the first one of this name.

    :raises ValueError: there is none, or a part that is needed is damaged
    """
    others = _value(data, 0, _NO_NAME, key)
    wanted = json.dumps(name).encode()
    start = data.find(b"\n" + wanted + b"\t") + 1
    if not start:
        raise ValueError(f"no service {name!r}")
    return {**others, "services": [_value(data, start, wanted, key)]}


def _name(service: Any) -> bytes:
    name = service.get("name") if isinstance(service, dict) else None
    return json.dumps(name).encode() if isinstance(name, str) else _NO_NAME


def _line(name: bytes, value: Any, key: bytes) -> bytes:
    try:
        text = json.dumps(value)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    # YAML knows more types than JSON; what would come back as something else is not kept.
    if json.loads(text) != value:
        raise ValueError("not JSON")
    return b"\t".join((name, _hash(key, name + text.encode()), text.encode())) + b"\n"


def _value(data: bytes, start: int, name: bytes, key: bytes) -> Any:
    found, digest, text = data[start : data.index(b"\n", start)].split(b"\t")
    if found != name or digest != _hash(key, name + text):
        raise ValueError("not what was written")
    return json.loads(text)


def _hash(key: bytes, data: bytes) -> bytes:
    return sha256(key + data).hexdigest().encode()
