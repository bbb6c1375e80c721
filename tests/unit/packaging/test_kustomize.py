"""Folders with a kustomization are rendered by the real program, and from nothing but the tree."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.requirements import require

from airflow_cd.exceptions import ManifestError
from airflow_cd.packaging.manifests import canonical, render

IMAGE, DIGEST = "registry.example/shop/hello", f"sha256:{'ab' * 32}"
POD = f"""apiVersion: v1
kind: Pod
metadata: {{name: hello}}
spec: {{containers: [{{name: app, image: "{IMAGE}:latest"}}]}}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    require(shutil.which("kubectl") or shutil.which("kustomize"), "needs kubectl or kustomize")
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def write(tree: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)


def rendered(tree: Path, path: str = "k8s", **kwargs: Any) -> list[dict[str, Any]]:
    return render(tree, path, image=IMAGE, digest=DIGEST, **kwargs)


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_an_overlay_is_what_kustomize_makes_of_it(tree: Path, name: str) -> None:
    patch = "- {op: add, path: /metadata/annotations, value: {shop: eu}}"
    overlay = "resources: [../base]\nnamePrefix: eu-\npatches: [{path: p.yaml, target: {kind: Pod}}]\n"
    made = "configMapGenerator: [{name: settings, files: [texts/de.txt]}]\n"
    write(tree, {"base/kustomization.yaml": f"resources: [pod.yaml]\n{made}", "base/pod.yaml": POD})
    write(tree, {"base/texts/de.txt": "Hallo", f"k8s/{name}": overlay, "k8s/p.yaml": patch})
    settings, pod = rendered(tree)
    assert settings["data"] == {"de.txt": "Hallo"} and settings["metadata"]["name"].startswith("eu-settings-")
    assert pod["metadata"] == {"name": "eu-hello", "annotations": {"shop": "eu"}}
    assert pod["spec"]["containers"][0]["image"] == f"{IMAGE}@{DIGEST}"
    assert canonical(rendered(tree)) == canonical([settings, pod])


def test_an_image_may_be_named_by_kustomize(tree: Path) -> None:
    write(
        tree,
        {"k8s/kustomization.yaml": f"resources: [pod.yaml]\nimages: [{{name: app, newName: {IMAGE}}}]\n"},
    )
    write(tree, {"k8s/pod.yaml": POD.replace(f"{IMAGE}:latest", "app")})
    assert rendered(tree)[0]["spec"]["containers"][0]["image"] == f"{IMAGE}@{DIGEST}"


def test_generated_secrets_are_refused_as_written_ones_are(tree: Path) -> None:
    text = "resources: [pod.yaml]\nsecretGenerator: [{name: s, literals: [password=x]}]\n"
    write(tree, {"k8s/kustomization.yaml": text, "k8s/pod.yaml": POD})
    with pytest.raises(
        ManifestError, match=r"k8s as kustomize renders it, document . .*Secret/s-.*app\.secrets"
    ):
        rendered(tree)


def test_what_kustomize_says_is_passed_on(tree: Path) -> None:
    write(tree, {"k8s/kustomization.yaml": "resources: [pod.yaml]\nnosuchfield: 1\n", "k8s/pod.yaml": POD})
    with pytest.raises(ManifestError, match="^k8s: .*nosuchfield"):
        rendered(tree)


class Elsewhere:
    """An HTTP server that would gladly be fetched from."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(POD.encode())

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever).start()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    one = Elsewhere()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.mark.parametrize(
    "text",
    [
        "resources: [{url}/pod.yaml]",
        "Resources: [{url}/pod.yaml]",
        "bases: ['{url}/shop/hello.git']",
        "components: ['git::{url}/shop/hello']",
        "resources: ['github.com/shop/hello?ref=main']",
        "resources: ['git@127.0.0.1:shop/hello.git']",
        "resources: ['file:///etc']",
        "crds: ['{url}/pod.yaml']",
        "patches: [{{path: '{url}/pod.yaml'}}]",
        "patchesStrategicMerge: ['{url}/pod.yaml#: ']",
        "openapi: {{path: '{url}/pod.yaml'}}",
        "replacements: [{{path: '{url}/pod.yaml'}}]",
        "configMapGenerator: [{{name: a, files: ['a={url}/pod.yaml']}}]",
        "configMapGenerator: [{{name: a, envs: ['{url}/pod.yaml']}}]",
    ],
)
@pytest.mark.parametrize("where", ["k8s", "base"])
def test_nothing_is_fetched(tree: Path, elsewhere: Elsewhere, text: str, where: str) -> None:
    write(
        tree, {"k8s/kustomization.yaml": "resources: [../base]\n", "base/kustomization.yaml": "resources: []"}
    )
    write(tree, {f"{where}/kustomization.yaml": text.format(url=elsewhere.url)})
    with pytest.raises(ManifestError, match=f"^{where}/kustomization.yaml, .* is somewhere else.*Copy it"):
        rendered(tree)
    assert elsewhere.asked == []


PLUGIN = """apiVersion: builtin
kind: PatchTransformer
metadata: {{name: notice}}
Path: {url}/patch.yaml
target: {{kind: Pod}}
"""


@pytest.mark.parametrize("key", ["generators", "transformers", "Validators"])
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "file"])
def test_plugins_fetch_nothing_either(tree: Path, elsewhere: Elsewhere, key: str, inline: bool) -> None:
    plugin = PLUGIN.format(url=elsewhere.url)
    entry = json.dumps(plugin) if inline else "plugin.yaml"
    write(tree, {"k8s/kustomization.yaml": f"resources: [pod.yaml]\n{key}: [{entry}]\n"})
    write(tree, {"k8s/pod.yaml": POD, "k8s/plugin.yaml": plugin})
    with pytest.raises(ManifestError, match="`Path`: .* is somewhere else.*Copy it"):
        rendered(tree)
    assert elsewhere.asked == []


def test_plugins_are_not_made_by_kustomize_itself(tree: Path, elsewhere: Elsewhere) -> None:
    patch = f"patches: [{{target: {{}}, patch: '[{{op: add, path: /path, value: \"{elsewhere.url}\"}}]'}}]"
    write(tree, {"k8s/plugins/kustomization.yaml": f"resources: [plugin.yaml]\n{patch}\n"})
    write(tree, {"k8s/plugins/plugin.yaml": PLUGIN.format(url="x")})
    write(
        tree,
        {"k8s/kustomization.yaml": "resources: [pod.yaml]\ntransformers: [plugins]", "k8s/pod.yaml": POD},
    )
    with pytest.raises(ManifestError, match="`transformers`: 'plugins' is a folder; name the files"):
        rendered(tree)
    assert elsewhere.asked == []


def test_plugins_of_kustomize_render(tree: Path) -> None:
    plugin = PLUGIN.replace("Path: {url}/patch.yaml", "path: patch.yaml").format()
    patch = "- {op: add, path: /metadata/annotations, value: {see: 'https://shop.example'}}"
    write(tree, {"k8s/kustomization.yaml": "resources: [pod.yaml]\ntransformers: [plugin.yaml]\n"})
    write(tree, {"k8s/pod.yaml": POD, "k8s/plugin.yaml": plugin, "k8s/patch.yaml": patch})
    assert rendered(tree)[0]["metadata"]["annotations"] == {"see": "https://shop.example"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resources: [../../outside]", "leads out of the source"),
        ("resources: [/etc]", "leads out of the source"),
        ("resources: [link]", "leads out of the source, by a link"),
        ("resources: [nothing.yaml]", "'nothing.yaml': this does not exist in the source"),
        ("resources: [../empty]", "^empty: another kustomization brings this folder in.*kustomization.yaml"),
        ("configMapGenerator: [{name: a, files: [a=link/pod.yaml]}]", "leads out of the source, by a link"),
        ("resources: [a.yaml]\nresources: [b.yaml]", "line 2: .*'resources' is given twice"),
        ("- a", "a kustomization is a mapping, not a list"),
    ],
)
def test_it_stays_in_the_tree(tree: Path, text: str, says: str) -> None:
    write(tree.parent, {"outside/kustomization.yaml": "resources: [pod.yaml]", "outside/pod.yaml": POD})
    write(tree, {"k8s/kustomization.yaml": text, "empty/README.md": ""})
    (tree / "k8s" / "link").symlink_to("../../outside")
    with pytest.raises(ManifestError, match=says):
        rendered(tree)


def test_the_kustomization_itself_is_no_way_out(tree: Path) -> None:
    write(tree.parent, {"outside/kustomization.yaml": "resources: []"})
    (tree / "k8s").mkdir()
    (tree / "k8s" / "kustomization.yaml").symlink_to("../../outside/kustomization.yaml")
    with pytest.raises(ManifestError, match=r"k8s/kustomization\.yaml: this leads out of the source"):
        rendered(tree)


def test_folders_that_bring_in_each_other_end(tree: Path) -> None:
    write(
        tree, {"k8s/kustomization.yaml": "resources: [../base]", "base/kustomization.yaml": "bases: [../k8s]"}
    )
    with pytest.raises(ManifestError, match="cycle"):
        rendered(tree)


class TestPrograms:
    """Which program renders, as seen by programs of the test's own."""

    @pytest.fixture
    def path(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        write(tree, {"k8s/kustomization.yaml": "resources: [pod.yaml]\n", "k8s/pod.yaml": POD})
        folder = tree.parent / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))
        return folder

    def add(self, folder: Path, name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    def test_kustomize_does_where_there_is_no_kubectl(self, tree: Path, path: Path) -> None:
        self.add(path, "kustomize", '[ "$1" = build ] && /bin/cat "$2/pod.yaml"')
        assert rendered(tree)[0]["kind"] == "Pod"

    def test_neither_is_said_with_what_to_do(self, tree: Path, path: Path) -> None:
        with pytest.raises(
            ManifestError, match="^k8s: .*`kubectl` or `kustomize` on the worker.*install one"
        ):
            rendered(tree)

    def test_one_that_hangs_is_ended(self, tree: Path, path: Path) -> None:
        self.add(path, "kubectl", "exec /bin/sleep 600")
        with pytest.raises(ManifestError, match="`kubectl` took longer than 0.2 s"):
            rendered(tree, timeout=0.2)

    def test_one_that_says_too_much_is_not_believed(self, tree: Path, path: Path) -> None:
        self.add(path, "kubectl", "/usr/bin/head -c 3000000 /dev/zero")
        with pytest.raises(ManifestError, match="what kustomize makes of it is larger"):
            rendered(tree)

    def test_nothing_of_the_workers_environment_reaches_it(
        self, tree: Path, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "s3cret")
        self.add(path, "kubectl", "/usr/bin/env >&2; exit 3")
        with pytest.raises(ManifestError, match="failed: .*GIT_ALLOW_PROTOCOL=none") as told:
            rendered(tree)
        assert "s3cret" not in str(told.value)
