"""Images are built and pushed by a real engine to a real registry."""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.engine import remove_later
from tests.support.images import Registry

from airflow_cd.exceptions import ArtifactError, UnsafeArchiveError
from airflow_cd.model.package import ImageSettings
from airflow_cd.packaging.images import (
    attach,
    build_image,
    path_of,
    push_image,
    registry_client,
    tag_of,
    write_context,
)


@pytest.fixture
def image(engine: Any, registry: Registry) -> Iterator[ImageSettings]:
    one = ImageSettings(repository=f"{registry.address}/test/{uuid.uuid4().hex[:12]}")
    yield one
    remove_later(one.repository)


def tree_of(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY page /page\n")
    (folder / "page").write_text(text)
    return folder


def context_of(tree: Path) -> bytes:
    into = io.BytesIO()
    write_context(tree, "Dockerfile", into)
    return into.getvalue()


def test_a_tag_that_somebody_moves_changes_nothing(engine: Any, image: ImageSettings, tmp_path: Path) -> None:
    lines: list[str] = []
    build_image(engine, image, tree_of(tmp_path / "one", "one"), {"a": "b"}, "1", lines.append)
    first = push_image(engine, image.repository, "1")
    assert any("COPY page" in line for line in lines)
    assert engine.images.get(f"{image.repository}:1").labels["a"] == "b"
    build_image(engine, image, tree_of(tmp_path / "two", "two"), {"a": "b"}, "1", lines.append)
    assert push_image(engine, image.repository, "1") != first
    assert engine.api.inspect_distribution(f"{image.repository}@{first}")["Descriptor"]["digest"] == first


def test_a_failing_build_says_why(engine: Any, image: ImageSettings, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "one", "one")
    (tree / "Dockerfile").write_text("FROM python:3.11-slim\nCOPY nothing /\n")
    with pytest.raises(ArtifactError, match="building .* failed: .*nothing"):
        build_image(engine, image, tree, {}, "1", print)


def test_the_context_is_the_same_bytes_without_what_is_ignored(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "one", "one")
    (tree / ".dockerignore").write_text("secret\n")
    before = context_of(tree)
    (tree / "secret").write_text("x")
    os.utime(tree / "page", (1, 1))
    assert context_of(tree) == before


def test_a_link_out_of_the_context_is_refused(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "one", "one")
    (tree / "out").symlink_to("../other")
    with pytest.raises(UnsafeArchiveError, match="'out' leads out"):
        context_of(tree)


def test_tags_hold_only_what_tags_may() -> None:
    assert tag_of("1.2.0+g12ab/x") == "1.2.0-g12ab-x"


def test_documents_are_found_from_the_image(engine: Any, image: ImageSettings, tmp_path: Path) -> None:
    build_image(engine, image, tree_of(tmp_path / "one", "one"), {}, "1", print)
    subject = push_image(engine, image.repository, "1")
    name = path_of(image.repository)
    kinds = ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]
    with registry_client(image.repository, None) as client:
        attached = [attach(client, name, subject, kind, b'{"a":1}') for kind in kinds * 2]
        assert attached[:2] == attached[2:]
        accept = {"Accept": "application/vnd.oci.image.index.v1+json"}
        listed = client.get(f"/v2/{name}/referrers/{subject}", headers=accept)
        if listed.status_code == 404:
            listed = client.get(f"/v2/{name}/manifests/{subject.replace(':', '-')}", headers=accept)
        entries = listed.json()["manifests"]
        assert [(one["digest"], one["artifactType"]) for one in entries] == list(
            zip(attached[:2], kinds, strict=True)
        )
        one = {"Accept": entries[0]["mediaType"]}
        manifest = client.get(f"/v2/{name}/manifests/{attached[0]}", headers=one).json()
        assert manifest["subject"]["digest"] == subject
        assert client.get(f"/v2/{name}/blobs/{manifest['layers'][0]['digest']}").content == b'{"a":1}'
