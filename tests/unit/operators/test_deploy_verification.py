"""Where signatures are demanded, `deploy` lets in what was signed and nothing else, and says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from tests.support.local_run import LocalRun, flip, local_run
from tests.support.signing_keys import connect, new_key, private_pem, public_pem

from airflow_cd.hooks.signing import SigningKeyHook
from airflow_cd.model.service import Service
from airflow_cd.packaging.archive import pack
from airflow_cd.packaging.provenance import MANIFEST, STATEMENT, sign


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    """The release "one" is in production, unsigned; "two" is packaged and signed by ``ours``."""
    key = new_key()
    connect(monkeypatch, "ours", private_key=private_pem(key))
    connect(monkeypatch, "ours_public", public_key=public_pem(key))
    connect(monkeypatch, "theirs", private_key=private_pem(new_key()))
    with local_run(tmp_path, monkeypatch) as one:
        one.package(one.service(), one.commit("one"))
        one.deploy(one.service())
        one.package(one.service("ours"), one.commit("two"))
        yield one


def refused(run: LocalRun, service: Service, says: str) -> str:
    """Deploy, and expect a refusal that leaves everything as it was."""
    before = run.record(service)
    with pytest.raises(AirflowFailException, match=says) as caught:
        run.deploy(service)
    assert (run.record(service), run.served()) == (before, "one")
    return str(caught.value)


@pytest.mark.parametrize("conn_ids", [["ours"], ["ours_public"], ["theirs", "ours_public"]])
def test_a_signature_by_any_listed_key_is_enough(run: LocalRun, conn_ids: list[str]) -> None:
    done = run.deploy(run.service("ours", conn_ids))
    assert run.served() == "two"
    assert done["verified_by"] == SigningKeyHook("ours").public_key().keyid


def test_where_nothing_is_demanded_nothing_is_checked(run: LocalRun) -> None:
    run.blob(run.xcoms["package"]["envelopes"]["manifest"]).unlink()
    assert run.deploy(run.service("ours"))["verified_by"] is None
    assert run.served() == "two"


def test_an_unsigned_release_is_refused_until_it_is_packaged_again(run: LocalRun) -> None:
    run.package(run.service())
    demanding = run.service("ours", ["ours"])
    refused(run, demanding, "not touched: hello .* is not signed.*trigger the DAG with revision")
    run.package(demanding)
    run.deploy(demanding)
    assert run.served() == "two"


def test_a_key_that_is_not_listed_is_named(run: LocalRun) -> None:
    ours, theirs = (SigningKeyHook(conn_id).public_key().keyid for conn_id in ("ours", "theirs"))
    refused(run, run.service("ours", ["theirs"]), f"the manifest of hello .*not listed: {ours}.*{theirs}")


@pytest.mark.parametrize("conn_ids", [["nowhere"], ["ours", "nowhere"]])
def test_a_missing_connection_lets_nothing_in(run: LocalRun, conn_ids: list[str]) -> None:
    refused(run, run.service("ours", conn_ids), "Airflow has no connection 'nowhere'; create it, of type cd_")


def test_a_running_release_must_be_signed_too(run: LocalRun) -> None:
    """A task that succeeds in such an environment means a release that was verified."""
    run.xcoms["package"] = run.package(run.service(), run.commit("three"))
    run.deploy(run.service())
    with pytest.raises(AirflowFailException, match="is not signed"):
        run.deploy(run.service("ours", ["ours"]))
    assert run.served() == "three"


def manifest_of(run: LocalRun) -> dict[str, Any]:
    return dict(json.loads(run.store.get_bytes(run.xcoms["package"]["manifest"])))


DOCUMENTS: dict[str, tuple[Callable[[LocalRun], str], str]] = {
    "manifest": (lambda run: run.xcoms["package"]["manifest"], "the manifest of hello"),
    "statement": (lambda run: manifest_of(run)["provenance"], "the provenance of hello"),
    "manifest envelope": (
        lambda run: run.xcoms["package"]["envelopes"]["manifest"],
        "the signature of the manifest of hello",
    ),
    "statement envelope": (
        lambda run: run.xcoms["package"]["envelopes"]["provenance"],
        "the signature of the provenance of hello",
    ),
}


@pytest.mark.parametrize("document", sorted(DOCUMENTS))
def test_a_document_that_was_changed_or_lost_is_named(run: LocalRun, document: str) -> None:
    digest_of, name = DOCUMENTS[document]
    digest = digest_of(run)
    blob = run.blob(digest)
    content = blob.read_bytes()
    for harm in (flip, Path.unlink):
        harm(blob)
        assert digest in refused(run, run.service("ours", ["ours"]), f"not touched: {name}")
        blob.write_bytes(content)
    run.deploy(run.service("ours", ["ours"]))
    assert run.served() == "two"


@pytest.mark.parametrize("signing", [None, "ours"])
def test_a_changed_archive_is_compared_member_by_member(
    run: LocalRun, tmp_path: Path, signing: str | None
) -> None:
    tree = tmp_path / "evil"
    (tree / "src").mkdir(parents=True)
    (tree / "src/app.py").write_text("evil")
    (tree / "src/extra.py").write_text("evil")
    digest = run.xcoms["package"]["digest"]
    pack(tree, run.blob(digest), include=["**"])
    said = refused(run, run.service(signing, [signing] if signing else None), digest)
    assert "changed: 'src/app.py'; added: 'src/extra.py'; removed: 'src/page.html'" in said
    assert run.store.put_file(run.blob(digest)) in said  # what it is now


def test_a_cut_archive_says_how_much_is_left(run: LocalRun) -> None:
    blob = run.blob(run.xcoms["package"]["digest"])
    size = blob.stat().st_size
    blob.write_bytes(blob.read_bytes()[: size // 2])
    said = refused(run, run.service("ours", ["ours"]), f"{size // 2} of {size} bytes")
    assert "cannot be read to its end" in said


def test_a_lost_list_of_members_does_not_hide_the_change(run: LocalRun) -> None:
    flip(run.blob(run.xcoms["package"]["digest"]))
    flip(run.blob(manifest_of(run)["contents"]))
    refused(
        run, run.service("ours", ["ours"]), "is corrupt.*the difference is not known: the list of its members"
    )


class TestForgery:
    """A person may write the artifact store and XCom, but has no listed key."""

    def forge(self, run: LocalRun, manifest: bytes, envelope: bytes | None = None, **ref: Any) -> None:
        envelopes = dict(run.xcoms["package"]["envelopes"])
        if envelope is not None:
            envelopes["manifest"] = run.store.put_bytes(envelope)
        forged = {"manifest": run.store.put_bytes(manifest), "envelopes": envelopes, **ref}
        run.xcoms["package"] = {**run.xcoms["package"], **forged}

    def manifest(self, run: LocalRun, **changes: Any) -> bytes:
        changed = {**manifest_of(run), **changes}
        return json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()

    def test_another_manifest_with_the_old_signature(self, run: LocalRun) -> None:
        self.forge(run, self.manifest(run, version="9.9"))
        refused(run, run.service("ours", ["ours"]), "what was signed is another document than sha256:")

    def test_another_manifest_signed_by_a_key_that_is_not_listed(self, run: LocalRun) -> None:
        forged = self.manifest(run, version="9.9")
        self.forge(run, forged, sign(forged, MANIFEST, SigningKeyHook("theirs").signer()))
        refused(run, run.service("ours", ["ours"]), "signed by a key that is not listed")

    def test_another_manifest_put_into_the_signed_envelope(self, run: LocalRun) -> None:
        forged = self.manifest(run, version="9.9")
        envelope = json.loads(run.store.get_bytes(run.xcoms["package"]["envelopes"]["manifest"]))
        envelope["payload"] = json.loads(sign(forged, MANIFEST, SigningKeyHook("theirs").signer()))["payload"]
        self.forge(run, forged, json.dumps(envelope).encode())
        refused(run, run.service("ours", ["ours"]), "the manifest of hello .*does not match the content")

    def test_the_statement_of_another_release(self, run: LocalRun) -> None:
        """Both signed by the right key; they do not belong together."""
        ours = SigningKeyHook("ours").signer()
        two = dict(run.xcoms["package"])
        three = run.package(run.service("ours"), run.commit("three"))
        mixed = json.dumps({**manifest_of(run), "provenance": self.provenance(run, two)}).encode()
        three["envelopes"]["provenance"] = two["envelopes"]["provenance"]
        self.forge(run, mixed, sign(mixed, MANIFEST, ours))
        run.xcoms["package"]["envelopes"]["provenance"] = two["envelopes"]["provenance"]
        refused(run, run.service("ours", ["ours"]), f"about {two['digest']}, not about {three['digest']}")

    def test_the_statement_of_another_commit(self, run: LocalRun) -> None:
        ours = SigningKeyHook("ours").signer()
        sha = manifest_of(run)["revision"]["sha"]
        statement = run.store.get_bytes(manifest_of(run)["provenance"]).replace(sha.encode(), b"f" * 40)
        mixed = self.manifest(run, provenance=run.store.put_bytes(statement))
        self.forge(run, mixed, sign(mixed, MANIFEST, ours))
        envelope = run.store.put_bytes(sign(statement, STATEMENT, ours))
        run.xcoms["package"]["envelopes"]["provenance"] = envelope
        refused(run, run.service("ours", ["ours"]), f"about {'f' * 40}, not about {sha}")

    def test_the_release_of_another_service(self, run: LocalRun) -> None:
        run.package(run.service("ours", name="other"), run.repository.git("rev-parse", "HEAD").strip())
        refused(run, run.service("ours", ["ours"]), "is about other")

    @staticmethod
    def provenance(run: LocalRun, ref: dict[str, Any]) -> str:
        return str(json.loads(run.store.get_bytes(ref["manifest"]))["provenance"])
