"""Requests to the API of one namespace of a Kubernetes cluster, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import TargetError
from airflow_cd.model.node_health import minor_of
from airflow_cd.targets.kubernetes.kinds import Kinds, unknown_kind
from airflow_cd.targets.kubernetes.objects import Reference
from airflow_cd.targets.kubernetes.refusals import is_absent, is_secret, is_unknown_kind, translate_api_error

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

MERGE = "application/merge-patch+json"
_JSON = "application/json"


class NamespaceApi:
    """
    Connects when it is first asked something.

    :param client: returns a client of the cluster, which tries again by itself what may be
    :param where: names the service and its place, for errors
    :param field_manager: as who fields are set
    """

    def __init__(
        self,
        client: Callable[[], ApiClient],
        namespace: str,
        where: str,
        field_manager: str = "airflow-cd",
    ) -> None:
        self._connect, self.namespace, self.where = client, namespace, where
        self._manager = field_manager
        self._kinds = Kinds(self._discovered, where)

    @cached_property
    def client(self) -> ApiClient:
        """The client of the cluster. :raises ClusterError: it cannot be reached as configured"""
        return self._connect()

    @cached_property
    def minor(self) -> int:
        """
        The minor version of the cluster: 20 of 1.20; 0 when it does not say.

        :raises TargetError: the cluster does not answer
        """
        with self.reported("/version"):
            found = self.request("GET", "/version")
        # Its key ``minor`` may be ``20+``, or empty.
        return minor_of(str(found.get("gitVersion"))) or 0

    @contextmanager
    def reported(self, what: str | None = None) -> Iterator[None]:
        """
        Say of the API's errors what they mean. Those of ours are let through.

        :param what: the object in question
        :raises AccessDeniedError: the cluster's roles forbid it; names the missing rule
        :raises FieldConflictError: somebody else manages fields that were to be set; names them
        :raises DeployConflictError: the object is not any more what it was when it was read
        :raises ManifestError: the object is not a valid one
        :raises TargetError: the cluster does not answer, or fails, or there is no such namespace
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            problem = translate_api_error(error, self.where, self.namespace, what)
            raise problem from (None if is_secret(what) else error)
        except (HTTPError, ConnectionError, TimeoutError) as error:
            raise TargetError(f"{self.where}: the cluster does not answer: {error}") from error

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """
        Return the API's answer to one request, whatever it is about.

        :raises kubernetes.client.ApiException: it is a refusal
        """
        return self.client.call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params={"Accept": _JSON, "Content-Type": content_type},
            body=body,
            response_types_map=dict.fromkeys((200, 201, 202), "object"),
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
        )

    def _of_one(
        self,
        method: str,
        reference: Reference,
        body: Mapping[str, Any] | None = None,
        content_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any] | None:
        """Return the answer to a request about one object, ``None`` when there is none."""
        from kubernetes.client import ApiException

        with self._about(reference):
            path = self._path(reference)
            try:
                found: dict[str, Any] = self.request(method, path, body, content_type, query)
                return found
            except ApiException as error:
                if is_absent(error, reference.name):
                    return None
                raise

    def _path(self, reference: Reference) -> str:
        return self._kinds.path(reference.api_version, reference.kind, self.namespace, reference.name)

    @contextmanager
    def _about(self, reference: Reference) -> Iterator[None]:
        """Say what an error is about. :raises ManifestError: the cluster has no such kind, among others"""
        from kubernetes.client import ApiException

        with self.reported(reference.described):
            try:
                yield
            except ApiException as error:
                if is_unknown_kind(error):
                    raise unknown_kind(self.where, reference.api_version, reference.kind) from error
                raise

    def _discovered(self, path: str) -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        try:
            found: dict[str, Any] = self.request("GET", path)
            return found
        except ApiException as error:
            if error.status == 404:
                return None
            raise
