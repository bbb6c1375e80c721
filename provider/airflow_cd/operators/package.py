"""Packages a built and tested revision as a release."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import ManifestError, SourceError, TargetError
from airflow_cd.operators.build import signer_of
from airflow_cd.releases.run import load_build
from airflow_cd.releases.uses import record_release

if TYPE_CHECKING:
    from airflow.sdk import Context
    from securesystemslib.signer import CryptoSigner

    from airflow_cd.model.release import Commit, Envelopes, Release, Revision, TestTotals
    from airflow_cd.model.service import Service
    from airflow_cd.stores.base import ArtifactStore

log = logging.getLogger(__name__)


def keep_manifests(service: Service, store: ArtifactStore, tree: Path, digest: str) -> dict[str, str]:
    """
    Render the manifests of each environment that has some, and keep them in the artifact store.

    :param tree: the workspace that was built
    :param digest: of the release's image
    :return: environment -> digest of its objects
    :raises AirflowFailException: they cannot be deployed; the same tree fails again in the same way
    """
    from airflow_cd.packaging.manifests import canonical, described, render

    image = service.package.image
    kept = {}
    for environment in service.environments:
        path = environment.target.settings.manifests_path
        if path is None:
            continue
        assert image is not None  # as the model makes sure
        try:
            objects = render(tree, path, image=image.repository, digest=digest)
        except ManifestError as error:
            raise AirflowFailException(f"manifests of {environment.name}: {error}") from error
        kept[environment.name] = store.put_bytes(canonical(objects))
        names = ", ".join(described(one) for one in objects)
        log.info("Manifests of %s: %s: %s", environment.name, names, kept[environment.name])
    return kept


BUILDER_ID = "https://pypi.org/project/airflow-provider-cd/"


class PackageOperator(BaseOperator):
    """
    Packs the archive, or builds and pushes the image, gathers its evidence, and stores the release manifest.

    An archive depends on the workspace alone: packing a revision again gives the same digest. An image is
    made once of a revision, and found again; its evidence is attached to it in its registry. The XCom is
    a :class:`~airflow_cd.model.release.ReleaseRef` as JSON; contents stay in the artifact store. Where the
    service has a signing key, manifest and provenance are signed, and the XCom says where the envelopes lie.

    :param service: what to package
    :param build_task_id: the task whose XCom names revision and workspace
    :param test_task_ids: suite name -> the task whose XCom holds its totals
    """

    template_fields: Sequence[str] = ()
    ui_color = "#fef7e0"

    def __init__(
        self,
        *,
        service: Service,
        build_task_id: str = "build",
        test_task_ids: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.build_task_id = build_task_id
        self.test_task_ids = dict(test_task_ids or {})

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Make the release.

        :raises ArtifactError: the store, the engine or the registry is unusable, a pattern matches nothing,
            or the Dockerfile cannot be built
        :raises AirflowFailException: there is no usable signing key, or manifests cannot be deployed
        """
        from airflow_cd.model.release import ReleaseRef, Revision
        from airflow_cd.packaging.archive import unpack
        from airflow_cd.releases.adapters import open_store, scratch_dir, store_url
        from airflow_cd.releases.verification import sign_release

        signer = signer_of(self.service)
        build = load_build(context, self.build_task_id)
        revision = Revision.model_validate(build["revision"])
        url = store_url(self.service)
        store = open_store(url)
        with scratch_dir(f"package-{self.service.name}") as scratch:
            tree = scratch / "tree"
            store.get_file(build["workspace"], scratch / "workspace.tar.gz")
            unpack(scratch / "workspace.tar.gz", tree)
            if self.service.package.image is not None:
                made = self._image(store, tree, revision, build["build"], signer)
            else:
                made = self._archive(store, tree, scratch / "release.tar.gz")
            manifests = keep_manifests(self.service, store, tree, made["digest"])
            sbom = self._sbom(tree, revision)
        statement = self._provenance(context, revision, made["digest"])
        release = self._manifest(
            context,
            revision,
            **made,
            manifests=manifests,
            build=build["build"],
            provenance=store.put_bytes(statement),
            sbom=store.put_bytes(sbom) if sbom is not None else None,
        )
        manifest = _canonical(release)
        if signer is not None:
            self.log.info("Signing manifest and provenance with key %s", signer.public_key.keyid)
        self._report(release)
        envelopes = sign_release(store, signer, manifest, statement) if signer else None
        if self.service.package.image is not None:
            self._attach(store, release.digest, statement, sbom, envelopes)
        ref = ReleaseRef(
            service=release.service,
            digest=release.digest,
            manifest=store.put_bytes(manifest),
            store=url,
            version=release.version,
            revision=revision.sha,
            envelopes=envelopes,
        )
        record_release(context, store, release, ref)
        return ref.model_dump(mode="json")

    def _archive(self, store: ArtifactStore, tree: Path, archive: Path) -> dict[str, Any]:
        from airflow_cd.packaging.archive import list_of, pack

        chosen = self.service.package.archive
        names = pack(tree, archive, include=chosen.include, exclude=chosen.exclude)
        digest, size = store.put_file(archive), archive.stat().st_size
        self.log.info("Packed %d files, %d bytes: %s", len(names), size, digest)
        return {"digest": digest, "size": size, "contents": store.put_bytes(list_of(archive))}

    def _image(
        self, store: ArtifactStore, tree: Path, revision: Revision, build: str, signer: CryptoSigner | None
    ) -> dict[str, Any]:
        from airflow_cd.releases.images import make_image

        assert self.service.package.image is not None
        made = make_image(self.service, revision, build, tree, store, signer)
        return {**made._asdict(), "image": self.service.package.image.repository}

    def _attach(
        self,
        store: ArtifactStore,
        digest: str,
        statement: bytes,
        sbom: bytes | None,
        envelopes: Envelopes | None,
    ) -> None:
        """Attach the evidence to the image in its registry."""
        from airflow_cd.packaging.provenance import STATEMENT
        from airflow_cd.releases import images

        documents = {STATEMENT: statement}
        if sbom is not None:
            documents[images.SBOM] = sbom
        if envelopes is not None:
            documents[images.ENVELOPE] = store.get_bytes(envelopes.provenance)
        assert self.service.package.image is not None
        images.attach_documents(self.service.package.image, digest, documents)

    def _sbom(self, tree: Path, revision: Revision) -> bytes | None:
        from airflow_cd.packaging.sbom import sbom

        return sbom(tree, name=self.service.name, version=revision.version, created_at=revision.committed_at)

    def _provenance(self, context: Context, revision: Revision, digest: str) -> bytes:
        from airflow_cd.packaging.provenance import provenance

        run, image = context["dag_run"], self.service.package.image
        assert run.start_date is not None  # since this task runs
        return provenance(
            release_name=image.repository if image else f"{self.service.name}-{revision.version}.tar.gz",
            digest=digest,
            repository=self.service.source.repository,
            revision=revision.sha,
            tree=revision.tree,
            commands=self.service.build.commands,
            suites={name: suite.commands for name, suite in self.service.test.items()},
            builder_id=BUILDER_ID,
            invocation_id=f"{run.dag_id}/{run.run_id}",
            # Of the run, not of this task: a retry then gives the same statement, and the same signature.
            started_on=run.start_date,
        )

    def _manifest(self, context: Context, revision: Revision, **evidence: Any) -> Release:
        from airflow_cd.model.release import Release

        since = self._running_in_production()
        return Release(
            service=self.service.name,
            revision=revision,
            version=revision.version,
            since=since,
            changelog=self._changelog(since, revision),
            tests=self._tests(context),
            created_at=revision.committed_at,
            **evidence,
        )

    def _running_in_production(self) -> str | None:
        """An unreachable production costs the changelog its start, not the release its making."""
        from airflow_cd.releases.adapters import open_target

        try:
            current = open_target(self.service, self.service.production).record().current
        except (TargetError, OSError) as error:
            self.log.warning("Cannot tell what production runs, so the changelog has no start: %s", error)
            return None
        return current.release.revision.sha if current else None

    def _changelog(self, since: str | None, revision: Revision) -> tuple[Commit, ...]:
        from airflow_cd.releases.adapters import open_source

        try:
            with open_source(self.service) as source:
                return tuple(source.changelog(since, revision.sha))
        except SourceError as error:
            self.log.warning("No changelog: %s", error)
            return ()

    def _tests(self, context: Context) -> dict[str, TestTotals]:
        from airflow_cd.model.release import TestTotals

        totals = {}
        for suite, task_id in self.test_task_ids.items():
            # A suite whose task a person marked as success left no totals: it counts as not run.
            pulled = context["ti"].xcom_pull(task_ids=task_id)
            totals[suite] = TestTotals.model_validate(pulled) if pulled else TestTotals()
        return totals

    def _report(self, release: Release) -> None:
        self.log.info("Release %s %s of commit %s", release.service, release.version, release.revision.sha)
        self.log.info("Since %s:", release.since or "the beginning (first release)")
        for commit in release.changelog:
            self.log.info("  %s %s (%s)", commit.short, commit.subject, commit.author_name)


def _canonical(release: Release) -> bytes:
    return json.dumps(release.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
