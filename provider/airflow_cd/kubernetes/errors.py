"""Translates errors of the Kubernetes API: what failed, why, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import (
    AccessDeniedError,
    CdError,
    ClusterError,
    CommandError,
    DeployConflictError,
    FieldConflictError,
    ManifestError,
    RunnerError,
    TargetError,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiException

# With the code 401.
NOT_ACCEPTED = (
    "the cluster does not accept the credentials (401). Renew the token or the certificate of the connection "
    "or of the kubeconfig."
)
_DENIED = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" '
    r'in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)


class Missing(NamedTuple):
    """
    One rule that the roles of a user lack.

    :param group: API group; empty for the core's
    :param namespace: ``None`` for the whole cluster
    """

    user: str
    verb: str
    resource: str
    group: str
    namespace: str | None

    @property
    def explained(self) -> str:
        """Return who cannot do what, and the rule to add."""
        place = f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"
        role = f"a Role of namespace {self.namespace}" if self.namespace else "a ClusterRole"
        rule = f'- apiGroups: ["{self.group}"]\n  resources: ["{self.resource}"]\n  verbs: ["{self.verb}"]'
        return (
            f"{self.user} cannot {self.verb} {self.resource} of API group {self.group or 'core'!r} {place}. "
            f"Add this to the rules of {role} that is bound to {self.user}:\n{rule}"
        )


def missing_in(message: str) -> Missing | None:
    """Return what a refusal (403) says that is missing, if it says so."""
    found = _DENIED.search(message)
    return Missing(**found.groupdict()) if found is not None else None


_CONFLICT = re.compile(r'conflict with "(?P<manager>[^"]*)"(?P<how>.*)', re.DOTALL)
# Said by API servers (1.20 to 1.34) of an object that is not valid, with the code of an error of their own.
_BLAMED = ("failed to create typed patch object", "unable to convert unstructured object")
_SCHEMA = re.compile(
    r"failed to create typed patch object \([^)]*; (?P<api_version>[^,)]*), Kind=(?P<kind>[^)]*)\): "
    r"(?:errors:)?(?P<errors>.*)",
    re.DOTALL,
)
_CONVERSION = re.compile(r"unable to convert unstructured object to [^:]*: (?P<why>.*)", re.DOTALL)
_FIELD = re.compile(r"\.(?P<path>.+?): (?P<why>.*)", re.DOTALL)
# How Go prints a value, which is noise to readers.
_VALUES = (
    (re.compile(r"&value\.valueUnstructured\{Value:(.*)\}"), r"\1"),
    (re.compile(r"&\{(.*)\}"), r"\1"),
    (re.compile(r"map\[string\]interface ?\{\}"), "a map"),
    (re.compile(r"\[\]interface ?\{\}"), "a list"),
)


def translate_api_error(
    error: ApiException, where: str, namespace: str, what: str | None = None
) -> TargetError:
    """
    Return our error for one of the API's.

    :param where: names the service and its place
    :param namespace: in which the request was made
    :param what: names the object that the request was about
    """
    status = _status(error)
    message = str(status.get("message") or error.reason or error.status)
    place = f"{where}: {what}" if what else where
    if error.status == 401:
        return ClusterError(f"{where}: {NOT_ACCEPTED}")
    if error.status == 403:
        return _denied(status, message, where, namespace)
    if error.status == 404:
        return _not_found(status, message, place)
    if error.status == 409:
        return _conflict(status, message, place)
    if error.status in (400, 422) or blames_object(message):
        return _invalid(status, message, place, secret=is_secret(what))
    return TargetError(f"{place}: the cluster failed ({error.status or 'no answer'}): {message}")


def blames_object(text: str) -> bool:
    """Return whether the server says that an object is not valid, whatever code it says that with."""
    return any(words in text for words in _BLAMED)


def is_secret(what: str | None) -> bool:
    """Return whether what the API says of an object may quote secrets."""
    return (what or "").startswith("Secret/")


def is_absent(error: ApiException, name: str) -> bool:
    """Return whether the API says that it has no object of this name, rather than no such kind."""
    details = _status(error).get("details") or {}
    return error.status == 404 and details.get("name") == name and details.get("kind") != "namespaces"


def is_unknown_kind(error: ApiException) -> bool:
    """Return whether the API does not know the path of a kind."""
    return error.status == 404 and not (_status(error).get("details") or {}).get("name")


def _status(error: ApiException) -> dict[str, Any]:
    try:
        found = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _denied(status: Mapping[str, Any], message: str, where: str, namespace: str) -> TargetError:
    missing = missing_in(message)
    if missing is not None:
        return AccessDeniedError(f"{where}: {missing.explained}")
    details = status.get("details") or {}
    if message.rstrip().endswith("is forbidden:"):
        # The answer to an account that can change objects but cannot create them.
        resource, group = str(details.get("kind")), str(details.get("group") or "")
        missing = Missing("the deployer", "create", resource, group, namespace)
        return AccessDeniedError(f"{where}: {missing.explained}")
    return _refused(message, where)


def _refused(message: str, where: str) -> TargetError:
    """Return what is refused with the code of missing rights, and is about something else mostly."""
    if "attempting to grant" in message:
        return AccessDeniedError(f"{where}: nobody gives rights that he has not: {message}")
    if "being terminated" in message:
        return TargetError(f"{where}: the namespace is being removed: {message}")
    # A quota, or one of the cluster's own rules.
    return ManifestError(f"{where}: the cluster refuses: {message}")


def _not_found(status: Mapping[str, Any], message: str, place: str) -> TargetError:
    details = status.get("details") or {}
    if details.get("kind") == "namespaces":
        return TargetError(
            f"{place}: namespace {details.get('name')} does not exist. Create it, or correct `namespace` "
            "of the target."
        )
    return TargetError(f"{place}: {message}")


def _conflict(status: Mapping[str, Any], message: str, place: str) -> TargetError:
    causes = (status.get("details") or {}).get("causes") or []
    fields = [one for one in causes if one.get("reason") == "FieldManagerConflict"]
    if not fields:
        return DeployConflictError(f"{place} was changed by another client meanwhile: {message}")
    lines = "\n".join(f"  {one.get('field')} is managed by {_manager(one)}" for one in fields)
    return FieldConflictError(
        f"{place}: another field manager owns what the release sets:\n{lines}\n"
        "Write `on_conflict: take` into the target to take these fields over; or take them out of the "
        "manifests, or stop the other manager."
    )


def _manager(cause: Mapping[str, Any]) -> str:
    found = _CONFLICT.search(str(cause.get("message", "")))
    return f"{found['manager']!r}{found['how']}" if found else str(cause.get("message"))


def _invalid(status: Mapping[str, Any], message: str, place: str, secret: bool) -> TargetError:
    causes = _causes(status, message)
    if secret:
        # What follows the first error may be a quoted value that looks like another one.
        named = causes[:1] if _SCHEMA.search(message) else causes
        fields = ", ".join(field for field, _ in named if field) or "some field"
        return ManifestError(
            f"{place} is refused: {fields} is not valid. Why is not shown: it may be secret."
        )
    text = f"{place} is refused:\n" + "\n".join(f"  {': '.join(filter(None, one))}" for one in causes)
    if "field is immutable" in text:
        text += "\nGive the object another name, or delete it in the cluster first; it cannot be changed so."
    elif schema := _SCHEMA.search(message):
        command = (
            f"kubectl explain {schema['kind'].lower()} --api-version={schema['api_version'].lstrip('/')}"
        )
        text += f"\nCorrect the manifest. `{command}` lists the fields that the cluster knows."
    return ManifestError(text)


def _causes(status: Mapping[str, Any], message: str) -> list[tuple[str, str]]:
    """Return the fields that are not valid, and why; the field is empty where the server does not name it."""
    details = (status.get("details") or {}).get("causes") or []
    if details:
        return [(str(one.get("field")), str(one.get("message"))) for one in details]
    if schema := _SCHEMA.search(message):
        lines = re.split(r"\n\s+(?=\.)", schema["errors"].strip())
        found = [(line, _FIELD.fullmatch(line)) for line in lines]
        return [(match["path"], _shown(match["why"])) if match else ("", line) for line, match in found]
    if conversion := _CONVERSION.search(message):
        return [("", f"a value cannot be read: {conversion['why']}")]
    return [("", message)]


def _shown(why: str) -> str:
    for pattern, instead in _VALUES:
        why = pattern.sub(instead, why)
    return why


@contextmanager
def reported(namespace: str) -> Iterator[None]:
    """
    Say of errors of the cluster and of its connection what they are about, and what to do.

    :raises RunnerError: instead of these
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    from websocket import WebSocketBadStatusException, WebSocketException

    try:
        yield
    except (RunnerError, CommandError):
        raise
    except CdError as error:  # of the connection
        raise RunnerError(str(error)) from error
    except ApiException as error:
        raise RunnerError(_explained(error.status, error.body or error.reason, namespace)) from error
    except WebSocketBadStatusException as error:
        raise RunnerError(_explained(error.status_code, error.resp_body, namespace)) from error
    except (HTTPError, WebSocketException) as error:
        raise RunnerError(f"the cluster cannot be reached: {error}") from error


def _explained(status: int | None, body: object, namespace: str) -> str:
    message = _message(body)
    if status == 401:
        return NOT_ACCEPTED
    if status == 403 and (missing := missing_in(message)):
        # All that a runner does is in its namespace.
        return missing._replace(namespace=namespace).explained
    if status == 404 and f'namespaces "{namespace}" not found' in message:
        return f"namespace {namespace} does not exist. Create it, or correct `runner.kubernetes.namespace`."
    if status in (400, 403, 422):
        return f"the cluster refuses: {message}"
    return f"the cluster failed ({status or 'no answer'}): {message}"


def _message(body: object) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return str(found.get("message", text)) if isinstance(found, dict) else text
