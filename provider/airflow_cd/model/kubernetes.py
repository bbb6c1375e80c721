"""Releases that run on a Kubernetes cluster."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from airflow_cd.model.base import Argv, Duration, Env, Frozen, RelativePath
from airflow_cd.model.strategy import ObjectName
from airflow_cd.model.target_settings import Capability, TargetSettings

# A label of DNS, as namespaces and Services are called.
DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
# Prefixed or not; those that begin with ours say what a release is.
AnnotationName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
    ),
]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]


class Resources(Frozen):
    """
    What an instance is sure to get, and the most it may take.

    :param cpu: CPU that an instance is sure to get
    :param memory: memory that an instance is sure to get
    :param cpu_limit: the most CPU an instance may take
    :param memory_limit: the most memory an instance may take
    """

    cpu: Quantity | None = None
    memory: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory_limit: Quantity | None = None


class AppSettings(Frozen):
    """
    A Deployment and a Service for it, for those who have no manifests.

    :param port: the container's port; the variable ``PORT`` holds it as well
    :param replicas: how many instances run
    :param service_port: the Service's port
    :param service_type: how the Service is reached
    :param command: arguments instead of the image's own ``CMD``, as they are: nothing in them is replaced
    :param env: environment variables of the container
    :param secrets: variable -> Airflow connection whose password it holds
    :param ready: path that must answer below 400 before an instance gets requests; without, its port must
        accept connections
    :param alive: path that must go on answering below 400, or the instance is restarted; without, only an
        instance that ended is. An instance has ten minutes to answer there for the first time.
    :param user: user and group in the container, as numbers, such as ``1000:1000``, without any privileges;
        default: the image's. Namespaces where Pod Security is ``restricted`` demand it.
    :param image_pull_secrets: names of Secrets of the namespace with logins of registries, beside those of
        the ServiceAccount
    :param annotations: of the pods, such as for what collects metrics
    :param resources: CPU and memory of each instance: requests and limits
    :param service_account: name of the ServiceAccount its instances use
    :param stop_after: how long an instance goes on serving when it is taken out, until no client sends it
        requests any more. Before Kubernetes 1.32 that takes a program ``sleep`` in the image.
    :param grace: how long it may then take to end after SIGTERM
    """

    port: int = Field(8080, ge=1, le=65535)
    replicas: int = Field(1, ge=0)
    service_port: int = Field(80, ge=1, le=65535)
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    command: Argv | None = None
    env: Env = Field(default_factory=dict)
    secrets: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        default_factory=dict
    )
    ready: Annotated[str, StringConstraints(pattern=r"^/\S*$")] | None = None
    alive: Annotated[str, StringConstraints(pattern=r"^/\S*$")] | None = None
    user: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,9}(:[0-9]{1,10})?$")] | None = None
    image_pull_secrets: tuple[ObjectName, ...] = ()
    annotations: dict[AnnotationName, str] = Field(default_factory=dict)
    resources: Resources = Resources.model_construct()
    service_account: DnsLabel | None = None
    stop_after: Duration = timedelta(seconds=5)
    grace: Duration = timedelta(seconds=30)

    @model_validator(mode="after")
    def _each_variable_once(self) -> AppSettings:
        for name in self.secrets:
            if name in self.env:
                raise ValueError(f"has {name} under `env` and under `secrets`; remove one of them")
            if name in ("PORT", "HOST") or name.startswith("CD_"):
                raise ValueError(f"has {name} under `secrets`, a variable that is set without you; rename it")
        return self

    @field_validator("annotations")
    @classmethod
    def _not_ours(cls, annotations: dict[str, str]) -> dict[str, str]:
        for name in annotations:
            if name.startswith("airflow-cd/"):
                raise ValueError(f"has {name}, which is set without you; remove it")
        return annotations


class KubernetesTargetSettings(TargetSettings):
    """
    Objects of one namespace of a Kubernetes cluster.

    :param namespace: where they are; it has to exist
    :param manifests: file or folder of the source with them, as plain YAML, or as a folder with a
        ``kustomization.yaml``; containers whose image is the service's get the release's digest
    :param app: instead of manifests
    :param conn_id: Airflow connection of type ``kubernetes``; default: the cluster the worker is in, else
        its ``KUBECONFIG``
    :param context: context of the kubeconfig
    :param workload: name of the Deployment that the strategy and the Service are about, where several have
        the service's image
    :param service: name of the Service, where several select the workload
    :param url: where Airflow reaches the service; default: the Service's address
    :param progress_deadline: how long nothing may move during a rollout. The default is that of Deployments.
    :param on_conflict: what happens when another actor manages a field that a release sets: ``fail``, or
        ``take`` it over
    :param prune: whether objects that left the manifests are deleted
    :param keep: how many previous releases can be gone back to
    """

    takes = "image"
    capabilities = frozenset(Capability)

    namespace: DnsLabel
    manifests: RelativePath | None = None
    app: AppSettings | None = None
    conn_id: str | None = None
    context: str | None = None
    workload: ObjectName | None = None
    service: DnsLabel | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S*[^/\s]$")] | None = None
    progress_deadline: Duration = timedelta(minutes=10)
    on_conflict: Literal["fail", "take"] = "fail"
    prune: bool = True
    keep: int = Field(5, ge=1)

    @property
    def remote(self) -> tuple[str, ...]:
        """Return the cluster."""
        return "kubernetes", self.conn_id or "", self.context or ""

    @model_validator(mode="after")
    def _one_source(self) -> KubernetesTargetSettings:
        if (self.manifests is None) == (self.app is None):
            raise ValueError("needs either `manifests` (a path in the source) or `app` (a few keys)")
        return self

    @property
    def manifests_path(self) -> str | None:
        """Return the path in the source of the manifests, ``None`` for an ``app``."""
        return self.manifests

    @property
    def object_settings(self) -> dict[str, Any] | None:
        """Return ``app`` and ``manifests``."""
        return self.model_dump(mode="json", include={"app", "manifests"}, exclude_defaults=True)

    @property
    def described(self) -> str:
        """Return where it is, for people."""
        if self.url is not None:
            return self.url
        cluster = self.context or self.conn_id
        return f"namespace {self.namespace}" + (f" of {cluster}" if cluster else "")
