"""Attaches documents to an image in its registry, as the OCI distribution specification 1.1 has it."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import urljoin

import httpx

from airflow_cd.exceptions import ArtifactError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
_EMPTY = b"{}"


def attach(client: httpx.Client, name: str, subject: str, kind: str, document: bytes) -> str:
    """
    Attach a document to an image, and return the digest of the manifest that does so. Twice is as once.

    A registry without the referrers API gets the tag ``sha256-<hex>`` kept up to date, by reading and
    writing: of two writers at the same moment one may lose its entry until it attaches again.

    :param client: for the registry, with its address as ``base_url`` and its credentials
    :param name: of the repository within the registry
    :param subject: digest of the image
    :param kind: media type of the document, which becomes the artifact's type
    :raises ArtifactError: the registry does not answer or refuses
    """
    try:
        return _attach(client, f"/v2/{name}", subject, kind, document)
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise ArtifactError(f"cannot attach {kind} to {name}@{subject}: {error}") from error


def _attach(client: httpx.Client, base: str, subject: str, kind: str, document: bytes) -> str:
    answer = client.head(
        f"{base}/manifests/{subject}", headers={"Accept": f"{_IMAGE}, {_MANIFEST}, {_INDEX}"}
    )
    answer.raise_for_status()
    described = {
        "mediaType": answer.headers["Content-Type"],
        "digest": subject,
        "size": int(answer.headers["Content-Length"]),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": kind,
        "config": _put_blob(client, base, "application/vnd.oci.empty.v1+json", _EMPTY),
        "layers": [_put_blob(client, base, kind, document)],
        "subject": described,
    }
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    entry = {**_descriptor(_MANIFEST, body), "artifactType": kind}
    put = _put_manifest(client, base, entry["digest"], _MANIFEST, body)
    if "OCI-Subject" not in put.headers:
        _add_to_index(client, base, subject.replace(":", "-"), entry)
    return str(entry["digest"])


def _add_to_index(client: httpx.Client, base: str, tag: str, entry: dict[str, Any]) -> None:
    found = client.get(f"{base}/manifests/{tag}", headers={"Accept": _INDEX})
    if found.status_code != 404:
        found.raise_for_status()
    entries = found.json()["manifests"] if found.is_success else []
    if any(one["digest"] == entry["digest"] for one in entries):
        return
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [*entries, entry]}
    _put_manifest(client, base, tag, _INDEX, json.dumps(index, sort_keys=True).encode())


def _put_manifest(client: httpx.Client, base: str, reference: str, kind: str, body: bytes) -> httpx.Response:
    put = client.put(f"{base}/manifests/{reference}", content=body, headers={"Content-Type": kind})
    return put.raise_for_status()


def _put_blob(client: httpx.Client, base: str, kind: str, content: bytes) -> dict[str, Any]:
    described = _descriptor(kind, content)
    if client.head(f"{base}/blobs/{described['digest']}").is_success:
        return described
    begun = client.post(f"{base}/blobs/uploads/").raise_for_status()
    place = httpx.URL(urljoin(str(begun.url), begun.headers["Location"]))
    place = place.copy_merge_params({"digest": described["digest"]})
    headers = {"Content-Type": "application/octet-stream"}
    client.put(place, content=content, headers=headers).raise_for_status()
    return described


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(content)}
