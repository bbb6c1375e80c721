"""
The folder of one service in one environment, and its atomic record.

::

    lease.lock, lease.json     who deploys right now
    releases/<digest>/         unpacked releases
    generations/<n>/           record.json and upstream (where generation n's instance listens)
    current -> generations/<n> the one fact: what runs, and where requests go
    front.json, *.log

Record and traffic switch together, by replacing one symbolic link: whatever is killed when, they agree.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from airflow_cd.targets.record import Record

_KEPT_LOGS = 10  # generations


class Layout:
    """
    Paths of one service in one environment.

    :param root: folder of the local target
    """

    def __init__(self, root: Path, service: str, environment: str) -> None:
        self.folder = root / service / environment
        self.current = self.folder / "current"
        self.releases = self.folder / "releases"
        self.generations = self.folder / "generations"
        self.lease = self.folder / "lease.lock"
        self.holder = self.folder / "lease.json"
        self.front_config = self.folder / "front.json"

    def release(self, digest: str) -> Path:
        """Return where the release is unpacked."""
        return self.releases / digest.removeprefix("sha256:")

    def generation(self, number: int) -> Path:
        """Return the folder of a generation."""
        return self.generations / str(number)

    def log(self, name: str) -> Path:
        """Return the log file of an instance or of the front."""
        return self.folder / f"{name}.log"

    def record(self) -> Record:
        """Return what the current generation says."""
        try:
            return Record.model_validate_json((self.current / "record.json").read_bytes())
        except FileNotFoundError:
            return Record()

    def upstream(self) -> tuple[str, int] | None:
        """Return host and port of the instance that gets the requests."""
        try:
            host, _, port = (self.current / "upstream").read_text().rpartition(":")
        except FileNotFoundError:
            return None
        return host, int(port)

    def write_generation(self, record: Record, upstream: str) -> None:
        """Write a generation that is not current yet, replacing what an attempt that was killed left."""
        folder = self.generation(record.generation)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_durably(folder / "record.json", record.model_dump_json().encode())
        write_durably(folder / "upstream", upstream.encode())
        _sync_folder(folder)
        _sync_folder(self.generations)

    def make_current(self, generation: int) -> None:
        """Switch record and traffic to this generation, at once."""
        temporary = self.folder / f".current-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("generations") / str(generation))
        os.replace(temporary, self.current)
        _sync_folder(self.folder)

    def prune(self, record: Record) -> None:
        """
        Remove what belongs to generations long gone, releases nobody can go back to, and what attempts that
        were killed were writing. Needs the lease.
        """
        for temporary in self.folder.glob(".*"):
            temporary.unlink(missing_ok=True)
        for file in self.folder.glob("instance-*"):
            number = file.name.removeprefix("instance-").partition(".")[0]
            if number.isdigit() and int(number) <= record.generation - _KEPT_LOGS:
                file.unlink(missing_ok=True)
        for folder in self.generations.glob("*"):
            if folder.name != str(record.generation):
                shutil.rmtree(folder, ignore_errors=True)
        kept = {self.release(deployed.release.digest) for deployed in record.previous}
        if record.current:
            kept.add(self.release(record.current.release.digest))
        for folder in self.releases.glob("*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file durably."""
    write_durably(path, json.dumps(content, indent=1, sort_keys=True).encode())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
