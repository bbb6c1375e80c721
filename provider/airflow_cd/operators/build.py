"""Builds one commit of a service, once per tree and build definition."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import (
    ArtifactCorruptError,
    ArtifactNotFoundError,
    CommandError,
    SigningKeyError,
    UnsafeArchiveError,
    UnsafeTreeError,
)
from airflow_cd.links.release import CommitLink
from airflow_cd.operators.commands import CommandRunner
from airflow_cd.releases.events import trigger_payloads
from airflow_cd.releases.uses import record_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context
    from airflow.sdk.types import Logger
    from securesystemslib.signer import CryptoSigner

    from airflow_cd.model.release import Commit, Revision
    from airflow_cd.model.service import Service
    from airflow_cd.sources.base import Source
    from airflow_cd.stores.base import ArtifactStore

SHA_PATTERN = r"^[0-9a-f]{40}$"
_STATE_KEY = "revision"


def choose_revision(
    context: Context, service: Service, source: Source, wanted: str | None, log: Logger
) -> tuple[str, str | None]:
    """
    Return the SHA this run builds, and the one that was the branch's head before, when that is known.

    The choice is kept in the task's state store: a retry or a clear builds the same commit, also when the
    branch has moved meanwhile. Git hosts hand out any commit that they store, also one of a stranger's pull
    request: a commit that was named must be on the service's branch, unless ``source.revisions`` is ``any``.

    :param wanted: the run's ``revision`` param, rendered; empty to choose by event or branch
    :raises AirflowFailException: ``wanted`` is not a full SHA, or the commit is not on the branch
    """
    wanted = (wanted or "").strip()
    if wanted and not _is_sha(wanted):
        raise AirflowFailException(
            f"revision {wanted[:80]!r} is not a full commit SHA (40 hexadecimal digits); "
            "abbreviations and branch names are refused, since they can change their meaning"
        )
    if wanted:
        _refuse_foreign(service, source, wanted)
        return wanted, None
    state = context.get("task_state_store")
    kept: Any = state.get(_STATE_KEY) if state is not None else None
    if kept:
        # Users can write this store, too.
        _refuse_foreign(service, source, str(kept["sha"]))
        return kept["sha"], kept["previous"]
    pushed = _from_events(context, log)
    if pushed is not None:
        _refuse_foreign(service, source, pushed[0])
    sha, previous = pushed or (source.head(service.source.branch), None)
    if state is not None:
        state.set(_STATE_KEY, {"sha": sha, "previous": previous})
    return sha, previous


def _refuse_foreign(service: Service, source: Source, sha: str) -> None:
    branch = service.source.branch
    if service.source.revisions == "any" or source.is_on_branch(sha, branch):
        return
    raise AirflowFailException(
        f"commit {sha} is not on branch {branch!r} of {service.source.public_repository}: a force push "
        "removed it, or it belongs to another branch or to a pull request. Merge it, or allow such commits "
        "with `source: {revisions: any}`"
    )


def _from_events(context: Context, log: Logger) -> tuple[str, str | None] | None:
    """Return the newest pushed commit, and the head before the oldest of these pushes."""
    events = sorted(trigger_payloads(context, log), key=lambda pair: pair[0])
    payloads: list[dict[str, Any]] = [
        payload for _, payload in events if isinstance(payload, dict) and _is_sha(payload.get("revision"))
    ]
    if not payloads:
        return None
    previous = payloads[0].get("previous")
    return payloads[-1]["revision"], previous if _is_sha(previous) else None


def _is_sha(value: object) -> bool:
    # Not match(), for which a line end may follow the `$`.
    return isinstance(value, str) and re.fullmatch(SHA_PATTERN, value) is not None


def signer_of(service: Service) -> CryptoSigner | None:
    """
    Return what signs the service's builds and releases, ``None`` when nobody does.

    :raises AirflowFailException: its connection is missing, or holds no usable private key
    """
    if service.signing is None:
        return None
    from airflow_cd.hooks.signing import SigningKeyHook

    try:
        return SigningKeyHook(service.signing.conn_id).signer()
    except SigningKeyError as error:
        raise AirflowFailException(f"{service.name} is to be signed, but {error}") from error


# Part of every build key: raise it when the meaning of a stored workspace changes.
_FORMAT = 1


def build_key(service: Service, tree: str) -> str:
    """
    Return the name under which a build is stored.

    A build is a function of the tree, the commands and what runs them, and of nothing else: commands are
    not given the commit, so that two commits with the same tree share one build.
    """
    definition = service.build.model_dump(mode="json", exclude={"timeout"})
    machine = [platform.system(), platform.machine(), sys.implementation.cache_tag]
    runner = service.model_dump(mode="json", include={"runner"})["runner"] or "subprocess"
    content = json.dumps([_FORMAT, tree, runner, machine, definition], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


class BuildOperator(BaseOperator):
    """
    Checks out exactly one commit, builds it, and keeps the workspace in the artifact store.

    The commit is ``revision`` when given, else the newest one of the triggering asset events, else the
    head of the branch. A retried or cleared task builds the commit it took first. The XCom is a mapping with
    ``revision`` (:class:`~airflow_cd.model.release.Revision` as JSON), ``build`` (the build key),
    ``workspace`` (digest), ``reused`` and ``commits`` (SHAs, newest first).

    :param service: what to build
    :param revision: full SHA of the commit to build (templated); empty means to choose as above
    """

    template_fields: Sequence[str] = ("revision",)
    operator_extra_links = (CommitLink(),)
    ui_color = "#e8f0fe"

    _commands: CommandRunner | None = None

    def __init__(
        self, *, service: Service, revision: str = "{{ params.revision or '' }}", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.revision = revision

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Build the commit, or find that it was built before.

        :raises SourceError: the repository is unusable
        :raises AirflowFailException: a command failed, the commit holds what no folder may, or there is no
            usable signing key
        """
        from airflow_cd.releases.adapters import open_source, open_store, store_url

        signer = signer_of(self.service)
        with open_source(self.service) as source:
            sha, previous = choose_revision(context, self.service, source, self.revision, self.log)
            revision = source.revision(sha)
            commits = (source.changelog(previous, sha, limit=20) if previous else ()) or [revision]
            self._announce(revision, commits)
            key = build_key(self.service, revision.tree)
            store = open_store(store_url(self.service))
            workspace = self._stored(context, store, revision, key, signer)
            reused = workspace is not None
            if workspace is None:
                workspace = self._build(context, source, revision, store, key, signer)
                record_workspace(context, store, self.service.name, revision, key, workspace)
        return {
            "revision": revision.model_dump(mode="json"),
            "build": key,
            "workspace": workspace,
            "reused": reused,
            "commits": [commit.sha for commit in commits],
        }

    def on_kill(self) -> None:
        """End the command that runs."""
        if self._commands is not None:
            self._commands.kill()

    def _announce(self, revision: Revision, commits: Sequence[Commit]) -> None:
        self.commit_url = revision.url
        self.log.info("This run takes %d commit(s) of %s:", len(commits), self.service.name)
        for commit in commits:
            self.log.info(
                "  %s %s (%s) %s", commit.short, commit.subject, commit.author_name, commit.url or ""
            )

    def _stored(
        self,
        context: Context,
        store: ArtifactStore,
        revision: Revision,
        key: str,
        signer: CryptoSigner | None,
    ) -> str | None:
        from airflow_cd.releases.verification import is_signed_build

        found = store.get_ref(f"builds/{key}")
        if found is None:
            return None
        if not is_signed_build(signer, key, str(found["workspace"]), found):
            self.log.warning("Built before, but not signed by this service's key: building again")
            return None
        # Before it is looked at: from here on no collector takes it away.
        record_workspace(context, store, self.service.name, revision, key, found["workspace"])
        if not self._is_intact(store, found["workspace"]):
            return None
        self.log.info(
            "Built before with the same tree and definition; using workspace %s", found["workspace"]
        )
        return str(found["workspace"])

    def _is_intact(self, store: ArtifactStore, workspace: str) -> bool:
        """Return whether the stored bytes can be used; damaged ones would stop every later task."""
        from airflow_cd.releases.adapters import scratch_dir

        try:
            with scratch_dir(f"build-{self.service.name}") as scratch:
                store.get_file(workspace, scratch / "workspace.tar.gz")
        except (ArtifactCorruptError, ArtifactNotFoundError) as error:
            self.log.warning("Built before, but what was kept cannot be used (%s): building again", error)
            return False
        return True

    def _build(
        self,
        context: Context,
        source: Source,
        revision: Revision,
        store: ArtifactStore,
        key: str,
        signer: CryptoSigner | None,
    ) -> str:
        from airflow_cd.packaging.archive import pack
        from airflow_cd.releases.adapters import scratch_dir
        from airflow_cd.releases.verification import sign_build

        with scratch_dir(f"build-{self.service.name}") as scratch:
            tree: Path = scratch / "tree"
            tree.mkdir()
            build = self.service.build
            try:
                source.checkout(revision.sha, tree)
                self.log.info("Checked out %s (tree %s)", revision.sha, revision.tree[:12])
                self._commands = CommandRunner(self.service, self.log)
                self._commands.run(context, build.commands, cwd=tree, env=build.env, timeout=build.timeout)
                pack(tree, scratch / "workspace.tar.gz", include=["**"])
            except (CommandError, UnsafeArchiveError, UnsafeTreeError) as error:
                # The same tree would fail the same way again.
                raise AirflowFailException(str(error)) from error
            workspace = store.put_file(scratch / "workspace.tar.gz")
        reference = {"workspace": workspace, "revision": revision.sha, "tree": revision.tree}
        store.put_ref(f"builds/{key}", {**reference, **sign_build(signer, key, workspace)})
        self.log.info("Kept the workspace as %s", workspace)
        return workspace
