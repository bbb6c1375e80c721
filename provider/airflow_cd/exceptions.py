"""
The errors this package raises. Each message says what failed, which value, and what to do.

::

    CdError
    ├── DefinitionError            a services file or a Service is wrong (file, line, value, remedy)
    ├── SourceError                the git repository cannot be used
    │   ├── RevisionNotFoundError  the commit does not exist (any more)
    │   └── UnsafeTreeError        the commit holds what no folder may, and will not get better
    ├── CommandError               a build or test command ended with a non-zero exit code
    │   └── CommandTimeoutError    ... or ran longer than allowed
    ├── EngineError                a Docker engine's connection, or its registry's, cannot be used
    ├── RunnerError                what runs commands (such as a Docker engine) cannot be used
    ├── TestsFailedError           a test suite reported failing tests
    ├── ArtifactError              the artifact store cannot be used
    │   ├── ArtifactNotFoundError
    │   ├── ArtifactCorruptError   the bytes are not those of the digest
    │   └── UnsafeArchiveError     an archive member would land outside its folder
    ├── SigningKeyError            a connection holds no usable signing key
    ├── VerificationError          a release is not what the environment demands signatures for
    │   ├── NotSignedError
    │   ├── UntrustedKeyError      signed, but by a key that is not listed
    │   └── InvalidSignatureError  the signature is not one of this content
    ├── MetricError                a measurement could not be taken; says nothing about the release
    ├── ApprovalError              a person's decision does not allow the deployment
    └── TargetError                the place releases run refused or failed
        ├── DeployConflictError    someone else deploys, or deployed meanwhile
        ├── WindowClosedError      the environment's windows or freezes do not allow a deployment now
        ├── NotReadyError          the new release did not become ready; the old one still serves
        ├── NoPreviousReleaseError there is nothing to roll back to
        ├── ManifestError          Kubernetes objects are not what can be deployed
        ├── FieldConflictError     another actor manages a field that a release sets
        ├── AccessDeniedError      the cluster does not let us do something; names the missing verb
        └── ClusterError           a Kubernetes cluster's connection is missing, or cannot be used
"""

from __future__ import annotations

from collections.abc import Sequence


class CdError(Exception):
    """Base of every error of this package."""


class DefinitionError(CdError):
    """
    Raised when a services file or a service definition is wrong.

    :param problem: what is wrong, in one sentence
    :param path: the file, when there is one
    :param line: the line in that file, from 1
    :param value: the offending value
    :param remedy: what to do about it
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | None = None,
        line: int | None = None,
        value: object = None,
        remedy: str | None = None,
        service: str | None = None,
    ) -> None:
        self.problem, self.path, self.line, self.value = problem, path, line, value
        self.remedy, self.service = remedy, service
        super().__init__(str(self))

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.path, self.line) if part is not None)
        text = f"{place}: {self.problem}" if place else self.problem
        if self.value is not None:
            text += f" (got {self.value!r})"
        return f"{text}. {self.remedy}" if self.remedy else text


class SourceError(CdError):
    """Raised when the git repository cannot be read."""


class RevisionNotFoundError(SourceError):
    """Raised when a commit does not exist in the repository (any more)."""


class UnsafeTreeError(SourceError):
    """Raised when a commit's files cannot be checked out safely, here or anywhere."""


class CommandError(CdError):
    """Raised when a command ended with a non-zero exit code."""

    def __init__(self, argv: Sequence[str], exit_code: int, tail: Sequence[str] = ()) -> None:
        self.argv, self.exit_code, self.tail = tuple(argv), exit_code, tuple(tail)
        text = f"command {list(argv)!r} ended with exit code {exit_code}"
        super().__init__("\n".join([text, *self.tail]))


class CommandTimeoutError(CommandError):
    """Raised when a command ran longer than allowed; its whole process group was ended."""

    def __init__(self, argv: Sequence[str], seconds: float, tail: Sequence[str] = ()) -> None:
        super().__init__(argv, -1, tail)
        self.seconds = seconds
        self.args = (f"command {list(argv)!r} ran longer than {seconds:g} s and was ended",)


class EngineError(CdError):
    """Raised when the connection of a Docker engine or of its registry is missing, or refused."""


class RunnerError(CdError):
    """Raised when what runs commands cannot be used, or fails while one runs; a retry may go better."""


class TestsFailedError(CdError):
    """Raised when a suite has failing tests; ``failed`` holds (the first of) their names."""

    __test__ = False  # not a test class, whatever its name says to pytest

    def __init__(self, suite: str, failed: Sequence[str], count: int, total: int) -> None:
        self.suite, self.failed = suite, tuple(failed)
        names = ", ".join(self.failed[:20]) + (", ..." if count > 20 else "")
        super().__init__(f"suite {suite!r}: {count} of {total} tests failed: {names}")


class ArtifactError(CdError):
    """Raised when the artifact store cannot be used."""


class ArtifactNotFoundError(ArtifactError):
    """Raised when the store has no such digest or reference."""


class ArtifactCorruptError(ArtifactError):
    """Raised when stored bytes do not have the digest they are stored under."""


class UnsafeArchiveError(ArtifactError):
    """Raised when an archive member would be written outside the folder it is unpacked to."""


class SigningKeyError(CdError):
    """Raised when a connection holds no usable signing key. The message never holds key material."""


class VerificationError(CdError):
    """Raised when a release is not what an environment demands a signature for."""


class NotSignedError(VerificationError):
    """Raised when there is no signature."""


class UntrustedKeyError(VerificationError):
    """Raised when only keys that are not listed signed; ``key_ids`` holds their ids."""

    def __init__(self, message: str, key_ids: Sequence[str]) -> None:
        self.key_ids = tuple(key_ids)
        super().__init__(message)


class InvalidSignatureError(VerificationError):
    """Raised when a signature by a listed key is not a signature of this content."""


class ApprovalError(CdError):
    """Raised when no valid decision of a person allows this release to be deployed."""


class TargetError(CdError):
    """Raised when a target refused or failed."""


class DeployConflictError(TargetError):
    """Raised when someone else deploys to the same environment, or did so meanwhile."""


class LeaseLostError(DeployConflictError):
    """Raised when another process took the lease of an environment from this one."""


class WindowClosedError(TargetError):
    """Raised when the environment's windows or freezes do not allow a deployment now."""


class NotReadyError(TargetError):
    """Raised when the new release did not become ready; the one before still serves."""


class NoPreviousReleaseError(TargetError):
    """Raised when there is no release to roll back to."""


class ManifestError(TargetError):
    """Raised when Kubernetes objects of a release cannot be deployed as they are."""


class FieldConflictError(TargetError):
    """Raised when another manager owns fields that a release sets, as after an edit by hand."""


class AccessDeniedError(TargetError):
    """Raised when the cluster's roles do not let us do something."""


class ClusterError(TargetError):
    """Raised when the connection of a Kubernetes cluster is missing, or says what cannot be used."""


class MetricError(CdError):
    """Raised when a measurement could not be taken; that says nothing about the release."""
