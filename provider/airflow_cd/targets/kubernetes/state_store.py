"""Stores the record of an environment and the objects of its releases in ConfigMaps beside the workload."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from airflow_cd.exceptions import DeployConflictError, ManifestError, TargetError
from airflow_cd.kubernetes.client import NamespaceClient
from airflow_cd.kubernetes.lease import Lease
from airflow_cd.kubernetes.objects import PREFIX, Reference
from airflow_cd.targets.kubernetes.fencing import FencedWriter
from airflow_cd.targets.record import Record

# That of a ConfigMap is 1 MiB, with its names and all else.
_LIMIT_BYTES = 1_000_000
# Of what is in one, when it is unpacked: others may write it.
_LONGEST_BYTES = 64 * 1024 * 1024
# Above this, nobody reads it in a terminal.
_PACKED_ABOVE_BYTES = 200_000
_HOLDS, _DIGEST, _RELEASE = f"{PREFIX}holds", f"{PREFIX}digest", f"{PREFIX}release"
_INVENTORY = TypeAdapter(tuple[Reference, ...])


class UnreadableError(TargetError):
    """Raised when a ConfigMap of ours is not what was written."""


class StoredRecord(NamedTuple):
    """
    A record as it was read.

    :param inventory: the objects that were applied, and may be deleted when they are not any more
    :param version: what a compare-and-set expects; ``None`` when there is no record
    """

    record: Record
    inventory: tuple[Reference, ...]
    version: str | None


class StateStore:
    """
    The record of one service in one environment, and the lease that stands beside it.

    Reading and writing the record is one request each, but for what they say. What releases consist of is
    kept and forgotten by the holder of the lease.
    """

    def __init__(self, cluster: NamespaceClient, service: str, environment: str) -> None:
        self._cluster = cluster
        self.name = object_name(service, environment)
        self.labels = labels_of(service, environment)
        self.lease = Lease(cluster, self.name)
        self.writer = FencedWriter(cluster, self.lease)

    def read(self) -> StoredRecord:
        """
        Return the record.

        :raises UnreadableError: there is one that cannot be read
        """
        found = self._cluster.get("v1", "ConfigMap", self.name)
        return StoredRecord(Record(), (), None) if found is None else self._parsed(found)

    def write(self, record: Record, inventory: Sequence[Reference], version: str | None) -> StoredRecord:
        """
        Replace the record that has this version, and return what was stored.

        Where the answer to that was lost and it is tried again, another request is made to find out.

        :param version: as it was read; ``None`` makes a record where there is none
        :raises DeployConflictError: another process wrote one meanwhile, or removed it
        :raises ManifestError: it is too big
        """
        inventory = tuple(inventory)
        contents = self._contents(record, inventory)
        try:
            if version is None:
                written: dict[str, Any] | None = self._cluster.create(self._config_map("record", contents))
            else:
                patch = {"metadata": {"resourceVersion": version}, **contents}
                written = self._cluster.merge(self._reference(self.name), patch)
        except DeployConflictError as error:
            found = self.read()
            if self._contents(found.record, found.inventory) == contents:
                return found
            raise DeployConflictError(
                f"{self._cluster.where}: another process changed the record meanwhile; it is at generation "
                f"{found.record.generation} now"
            ) from error
        if written is None:
            raise DeployConflictError(f"{self._cluster.where}: another process removed the record meanwhile")
        return StoredRecord(record, inventory, written["metadata"]["resourceVersion"])

    def keep_objects(self, release: str, objects: Sequence[Mapping[str, Any]]) -> str:
        """
        Keep what a release consists of, and return the digest of that.

        :param release: its digest; for people
        :raises ManifestError: that is too big
        """
        text = json.dumps(list(objects), sort_keys=True)
        digest = _digest(text)
        packed = self._packed(text, f"what release {release} consists of")
        config_map = self._config_map("objects", {"binaryData": {"objects": packed}})
        annotations = {_DIGEST: digest, _RELEASE: release}
        config_map["metadata"].update(name=self._objects_name(digest), annotations=annotations)
        self.writer.apply([config_map], take=True)
        return digest

    def objects(self, digest: str, *, of_release: bool = False) -> list[dict[str, Any]] | None:
        """
        Return what a release consists of, if it is kept here.

        :param digest: as :meth:`keep_objects` returned it
        :param of_release: it is the digest of the release instead, under which version 0.1 kept them
        :raises UnreadableError: it is, but cannot be read, or is not what was kept
        """
        name = self._objects_name(digest)
        found = self._cluster.get("v1", "ConfigMap", name)
        if found is None or _annotation(found, _DIGEST) != digest:
            return None
        again = "Deploy the release again: that writes it again."
        try:
            text = _unpacked(found["binaryData"]["objects"])
            kept: list[dict[str, Any]] = json.loads(text)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise self._unreadable(name, error, again) from error
        if not of_release and _digest(text) != digest:
            raise self._unreadable(name, ValueError(f"it was changed: its content is {_digest(text)}"), again)
        return kept

    def forget_objects(self, except_digests: Collection[str]) -> None:
        """Delete what other releases consist of: one request, and three for each that is deleted."""
        labels = {**self.labels, _HOLDS: "objects"}
        for found in self._cluster.list("v1", "ConfigMap", labels):
            if _annotation(found, _DIGEST) not in except_digests:
                self.writer.delete(self._reference(found["metadata"]["name"]), labels)

    def remove(self) -> None:
        """Delete the record and all that is kept with it."""
        self.forget_objects(())
        self.writer.delete(self._reference(self.name), {**self.labels, _HOLDS: "record"})

    def _contents(self, record: Record, inventory: tuple[Reference, ...]) -> dict[str, Any]:
        text = record.model_dump_json()
        listed = _INVENTORY.dump_json(inventory, exclude_none=True).decode()
        if len(text) + len(listed) < _PACKED_ABOVE_BYTES:
            return {"data": {"record": text, "inventory": listed}, "binaryData": None}
        packed = {"record": self._packed(text, "the record"), "inventory": self._packed(listed, "the record")}
        return {"data": None, "binaryData": packed}

    def _parsed(self, config_map: Mapping[str, Any]) -> StoredRecord:
        plain, packed = config_map.get("data") or {}, config_map.get("binaryData") or {}
        try:
            texts = [plain.get(key) or _unpacked(packed[key]) for key in ("record", "inventory")]
            record, inventory = Record.model_validate_json(texts[0]), _INVENTORY.validate_json(texts[1])
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise self._unreadable(
                self.name,
                error,
                "Use the version of this package that wrote it, or put back what was written. When there is "
                "nothing to put back, delete the ConfigMap: the next deployment then takes over what runs.",
            ) from error
        return StoredRecord(record, inventory, config_map["metadata"]["resourceVersion"])

    def _unreadable(self, name: str, error: Exception, remedy: str) -> UnreadableError:
        why = f"no key {error}" if isinstance(error, KeyError) else _told(error)
        return UnreadableError(
            f"{self._cluster.where}: ConfigMap {name} of namespace {self._cluster.namespace} cannot be "
            f"read: {why}. {remedy}"
        )

    def _packed(self, text: str, what: str) -> str:
        packed = gzip.compress(text.encode(), mtime=0)  # the same text is the same bytes
        if len(packed) > _LIMIT_BYTES:
            raise ManifestError(
                f"{self._cluster.where}: {what} has {len(packed)} bytes when packed, and a ConfigMap holds "
                f"no more than {_LIMIT_BYTES}. Keep large files out of the manifests, or fewer releases "
                "(`keep`)."
            )
        return b64encode(packed).decode()

    def _config_map(self, holds: str, contents: dict[str, Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": self.name, "labels": {**self.labels, _HOLDS: holds}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **contents}

    def _objects_name(self, digest: str) -> str:
        return f"{self.name}.{digest.rpartition(':')[2][:12]}"

    def _reference(self, name: str) -> Reference:
        return Reference(api_version="v1", kind="ConfigMap", name=name)


def object_name(service: str, environment: str) -> str:
    """Return what the record and the lease of a service in an environment are called."""
    return f"cd.{_label(service)}.{_label(environment)}"


def labels_of(service: str, environment: str) -> dict[str, str]:
    """Return the labels of everything of a service in an environment."""
    return {f"{PREFIX}service": _value(service), f"{PREFIX}environment": _value(environment)}


def _label(name: str) -> str:
    """Return a name as part of an object's name, which has no underscores. Different names stay different."""
    plain = name.replace("_", "-").strip("-")
    if plain == name:
        return name
    return f"{plain[:50]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _value(name: str) -> str:
    """Return a name as a label's value, which ends with a letter or digit."""
    return name if name[-1].isalnum() else _label(name)


def _annotation(config_map: Mapping[str, Any], name: str) -> str | None:
    found = (config_map["metadata"].get("annotations") or {}).get(name)
    return None if found is None else str(found)


def _unpacked(text: str) -> str:
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the header and the end of gzip
    unpacked = unpacking.decompress(b64decode(text, validate=True), _LONGEST_BYTES)
    if not unpacking.eof:
        raise ValueError(f"it is cut off, or has more than {_LONGEST_BYTES} bytes when unpacked")
    return unpacked.decode()


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        # Without the values: they may be long, and are in the ConfigMap.
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
    return str(error)
