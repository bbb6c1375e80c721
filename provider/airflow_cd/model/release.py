"""Revisions and releases: what was built, from what, with which evidence."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from airflow_cd.model.base import Frozen

Sha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Commit(Frozen):
    """One line of a changelog. ``url`` is the commit's page when the git host is known."""

    sha: Sha
    subject: str
    author_name: str
    author_email: str
    committed_at: datetime
    url: str | None = None

    @property
    def short(self) -> str:
        return self.sha[:8]


class Revision(Commit):
    """The commit a release is made from, and the hash of the service's tree in it."""

    tree: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    version: str


class TestTotals(Frozen):
    """Counts of one test suite; ``seconds`` is the sum the report states."""

    __test__ = False

    total: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        return self.total - self.failed - self.errors - self.skipped


class Release(Frozen):
    """
    The manifest of a release: immutable, stored in the artifact store beside the archive it describes.

    :param digest: the release's identity: sha256 of the archive, or the digest its registry gave the image
    :param size: bytes of the archive, or of the image as the engine that built it has it unpacked
    :param image: the image's repository, with its registry; ``None`` where the release is an archive
    :param since: revision that production ran when this was packaged, ``None`` for the first release
    :param changelog: commits after ``since`` up to ``revision``, newest first
    :param tests: totals by suite
    :param build: key of the build (tree and build definition) the archive was made from
    :param created_at: time of the commit, so that the same commit gives the same manifest
    :param provenance: digest of the SLSA v1 statement
    :param sbom: digest of the CycloneDX document, when the source declares dependencies
    :param contents: digest of the list of the archive's members, each with its own digest; images have none
    :param manifests: environment -> digest of its Kubernetes objects, for those whose target takes them from
        the source
    """

    service: str
    digest: Digest
    size: int
    image: str | None = None
    revision: Revision
    version: str
    since: Sha | None = None
    changelog: tuple[Commit, ...] = ()
    tests: dict[str, TestTotals] = Field(default_factory=dict)
    build: str
    created_at: datetime
    provenance: Digest | None = None
    sbom: Digest | None = None
    contents: Digest | None = None
    manifests: dict[str, Digest] = Field(default_factory=dict)

    @property
    def authors(self) -> tuple[str, ...]:
        """
        Return the e-mail addresses of those whose work this release brings to production.

        These are the authors of all commits since the release that production ran when this one was made;
        of the first release, that of its newest commit alone: it has no beginning to count from.
        """
        commits = (self.revision, *(self.changelog if self.since else ()))
        return tuple(dict.fromkeys(commit.author_email for commit in commits))

    @property
    def short(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]

    @property
    def pull_spec(self) -> str:
        """Return the name by which engines pull the image: by digest, never by a tag."""
        return f"{self.image}@{self.digest}"


class ReleaseName(Frozen):
    """A release, as far as a record or a history names it."""

    version: str
    digest: Digest
    revision: Sha
    subject: str

    @classmethod
    def of(cls, release: Release) -> ReleaseName:
        """Return the name of this release. A long subject is cut: every event of the history holds it."""
        revision = release.revision
        return cls(
            version=release.version,
            digest=release.digest,
            revision=revision.sha,
            subject=revision.subject[:200],
        )


class Envelopes(Frozen):
    """Digests of the DSSE envelopes of a signed release's documents, in its artifact store."""

    manifest: Digest
    provenance: Digest


class ReleaseRef(Frozen):
    """
    What tasks hand to each other through XCom: which release, and where its manifest lies.

    :param digest: the release
    :param manifest: digest of the manifest in the artifact store
    :param store: URL of the artifact store
    :param envelopes: where the signatures lie; ``None`` for an unsigned release. The manifest cannot say it:
        it would have to hold the digest of its own signature.
    """

    service: str
    digest: Digest
    manifest: Digest
    store: str
    version: str
    revision: Sha
    envelopes: Envelopes | None = None
