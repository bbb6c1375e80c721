"""
Write the secrets of docker-compose.yaml to a file that only its owner can read, once.

Usage: ``python3 compose/write_secrets.py .env``. Needs nothing but Python. A file that is there is left as it
is: with another Fernet key, the connections in the database could not be read any more.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

_SOCKET = Path("/var/run/docker.sock")
_NAMES = (
    "CD_API_SECRET_KEY",
    "CD_JWT_SECRET",
    "CD_POSTGRES_PASSWORD",
    "CD_REDIS_PASSWORD",
    "CD_ADMIN_PASSWORD",
)


def write(file: Path) -> bool:
    """
    Write the file, whole or not at all.

    :return: whether it was written; ``False`` when it is there already
    """
    values = {name: secrets.token_urlsafe(24) for name in _NAMES}
    # https://cryptography.io/en/latest/fernet/: 32 bytes, URL-safe base64
    values["CD_FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    # Whose members may use the socket: the workers join this group.
    values["CD_DOCKER_GID"] = str(_SOCKET.stat().st_gid if _SOCKET.exists() else 0)
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as output:
            output.write("".join(f"{name}={value}\n" for name, value in values.items()))
        os.link(unfinished, file)  # fails where a file is, unlike a rename
    except FileExistsError:
        return False
    finally:
        unfinished.unlink()
    return True


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else ".env")
    if write(path):
        print(f"wrote {path}: the password of the user admin is its CD_ADMIN_PASSWORD")
