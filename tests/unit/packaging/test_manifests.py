"""Files of a source become the objects of a release. Folders with a kustomization have tests of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_cd.exceptions import ManifestError
from airflow_cd.packaging.manifest_files import MAX_BYTES
from airflow_cd.packaging.manifests import canonical, render

IMAGE, DIGEST = "registry.example/shop/hello", f"sha256:{'ab' * 32}"
PINNED = f"{IMAGE}@{DIGEST}"
POD = f"""apiVersion: v1
kind: Pod
metadata: {{name: hello}}
spec: {{containers: [{{name: app, image: "{IMAGE}:latest"}}]}}
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "k8s").mkdir(parents=True)
    return tmp_path / "tree"


def rendered(tree: Path, path: str = "k8s", **files: str) -> list[dict[str, Any]]:
    """Render a folder of these files; in their names ``_`` is a dot."""
    for name, text in files.items():
        (tree / "k8s" / name.replace("_", ".")).write_text(text, "utf-8")
    return render(tree, path, image=IMAGE, digest=DIGEST)


def names(objects: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']}/{one['metadata']['name']}" for one in objects]


def test_a_folder_is_all_its_files_in_the_order_of_their_names(tree: Path) -> None:
    (tree / "k8s" / "deeper").mkdir()
    (tree / "k8s" / "deeper" / "x.yaml").write_text("not: an object")
    (tree / "k8s" / "README.md").write_text("# About")
    more = CONFIG.replace("one", "two")
    as_json = json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "three"}}, indent="\t"
    )
    objects = rendered(tree, b_yml=POD, a_yaml=f"---\n{CONFIG}---\n# nothing\n---\n{more}", c_json=as_json)
    assert names(objects) == ["ConfigMap/one", "ConfigMap/two", "Pod/hello", "ConfigMap/three"]


def test_a_file_is_a_source_as_well(tree: Path) -> None:
    assert names(rendered(tree, "k8s/a.yaml", a_yaml=POD, b_yaml=CONFIG)) == ["Pod/hello"]


def test_the_same_files_give_the_same_bytes(tree: Path) -> None:
    first = canonical(rendered(tree, a_yaml=POD, b_yaml=CONFIG))
    assert canonical(rendered(tree)) == first
    assert canonical(json.loads(first)) == first
    assert canonical([dict(reversed(one.items())) for one in json.loads(first)]) == first
    assert canonical(rendered(tree, b_yaml=CONFIG + "data: {a: b}\n")) != first


def test_what_an_alias_stood_for_is_pinned_there_alone(tree: Path) -> None:
    text = POD.replace("[{", "[&c {") + "other: *c\n"
    pod = rendered(tree, a_yaml=text)[0]
    assert (pod["spec"]["containers"][0]["image"], pod["other"]["image"]) == (PINNED, f"{IMAGE}:latest")


def test_files_are_of_bounded_size_and_utf_8(tree: Path) -> None:
    half = "# " + "x" * (MAX_BYTES // 2)
    with pytest.raises(ManifestError, match=r"k8s/b\.yaml: the files up to here are larger than"):
        rendered(tree, a_yaml=half, b_yaml=half)
    with pytest.raises(ManifestError, match=r"k8s/a\.yaml: this is larger than"):
        rendered(tree, a_yaml=half * 2)
    (tree / "k8s" / "a.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ManifestError, match=r"k8s/a\.yaml: byte 3 is not UTF-8"):
        rendered(tree)


class TestPaths:
    """Nothing is read that is not in the tree."""

    @pytest.fixture
    def secret(self, tree: Path) -> Path:
        outside = tree.parent / "outside"
        outside.mkdir()
        (outside / "pod.yaml").write_text(POD)
        return outside

    @pytest.mark.parametrize("path", ["../outside", "k8s/../../outside/pod.yaml", "/etc/passwd"])
    def test_by_their_names(self, tree: Path, secret: Path, path: str) -> None:
        with pytest.raises(ManifestError, match="leads out of the source"):
            rendered(tree, path)

    def test_through_links(self, tree: Path, secret: Path) -> None:
        (tree / "all").symlink_to(secret)
        with pytest.raises(ManifestError, match="all: this leads out of the source, by a link"):
            rendered(tree, "all")
        (tree / "k8s" / "a.yaml").symlink_to("../../outside/pod.yaml")
        with pytest.raises(ManifestError, match=r"k8s/a\.yaml: this leads out of the source, by a link"):
            rendered(tree)

    def test_a_link_within_the_tree_is_followed(self, tree: Path) -> None:
        (tree / "base.txt").write_text(POD)
        (tree / "k8s" / "a.yaml").symlink_to("../base.txt")
        assert names(rendered(tree)) == ["Pod/hello"]

    def test_that_are_not_there(self, tree: Path) -> None:
        with pytest.raises(ManifestError, match="manifests: this does not exist in the source; correct"):
            rendered(tree, "manifests")
        with pytest.raises(ManifestError, match=r"k8s: there is no \.yaml, \.yml, \.json file"):
            rendered(tree)
        (tree / "k8s" / "a.yaml").symlink_to("nowhere.yaml")
        with pytest.raises(ManifestError, match=r"k8s/a\.yaml: this does not exist"):
            rendered(tree)

    def test_that_lead_in_a_circle(self, tree: Path) -> None:
        (tree / "k8s" / "a.yaml").symlink_to("a.yaml")
        with pytest.raises(ManifestError, match=r"k8s/a\.yaml: this (leads in a circle|does not exist)"):
            rendered(tree)

    def test_that_are_no_files(self, tree: Path) -> None:
        os.mkfifo(tree / "k8s" / "a.yaml")
        with pytest.raises(ManifestError, match=r"k8s/a\.yaml: this is not a file"):
            rendered(tree)

    def test_with_hostile_names(self, tree: Path) -> None:
        for name in ("--help.yaml", "$(id).yaml", "a\n\x1b[31mred.yaml", os.fsdecode(b"\xff.yaml")):
            (tree / "k8s" / name).write_text("- no object")
            with pytest.raises(ManifestError, match="a Kubernetes object is a mapping") as told:
                rendered(tree)
            assert str(told.value).isprintable()
            (tree / "k8s" / name).unlink()
