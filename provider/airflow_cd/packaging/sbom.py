"""The software bill of materials: what a source's lock files declare, as CycloneDX 1.6."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.packaging.lock_files import Dependency, read_lockfiles

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_NAMESPACE = uuid.UUID("6f0c5b0e-6c36-5a0c-9f0a-3f6f4e2f1a90")


def sbom(folder: Path, *, name: str, version: str, created_at: datetime) -> bytes | None:
    """
    Return the bill of materials as JSON, or ``None`` when there is no lock file.

    Nothing is installed or run: lock files are read. The same files give the same bytes.

    :param name: of the service, the document's subject
    :param created_at: the commit's time, which becomes the document's
    :raises ArtifactError: a lock file cannot be read
    """
    dependencies = read_lockfiles(folder)
    if dependencies is None:
        return None
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    subject = Component(type=ComponentType.APPLICATION, name=name, version=version, bom_ref=f"service:{name}")
    bom = Bom(
        components=[_component(dependency) for dependency in dependencies],
        serial_number=_serial(name, version, dependencies),
    )
    bom.metadata.timestamp = created_at
    bom.metadata.component = subject
    bom.register_dependency(subject, list(bom.components))
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _component(dependency: Dependency) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from packageurl import PackageURL

    namespace, _, name = dependency.name.rpartition("/")
    parts = [value.partition(":") for value in dependency.hashes]
    hashes = [(f"SHA-{algorithm.removeprefix('sha')}", digest) for algorithm, _, digest in parts]
    purl = PackageURL(dependency.ecosystem, namespace or None, name, dependency.version)
    return Component(
        type=ComponentType.LIBRARY,
        group=namespace or None,
        name=name,
        version=dependency.version,
        purl=purl,
        bom_ref=purl.to_string(),
        scope=ComponentScope.OPTIONAL if dependency.development else ComponentScope.REQUIRED,
        hashes=[HashType(alg=HashAlgorithm(name), content=value) for name, value in hashes],
        properties=[Property(name="cd:lockfile", value=dependency.lockfile)],
    )


def _serial(name: str, version: str, dependencies: Iterable[Dependency]) -> uuid.UUID:
    content = json.dumps([name, version, *(dependency._asdict() for dependency in dependencies)])
    return uuid.uuid5(_NAMESPACE, content)
