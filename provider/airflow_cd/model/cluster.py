"""The declaration of a Kubernetes cluster: its namespaces, and what each team finds there."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.kubernetes import DnsLabel
from airflow_cd.model.notification import OF_CLUSTERS, NotificationSettings
from airflow_cd.model.strategy import ObjectName
from airflow_cd.model.window import Cron, ZoneName

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


# As Kubernetes takes it: 500m, 8Gi, or a number.
Amount = Annotated[
    str,
    BeforeValidator(_as_text),
    StringConstraints(pattern=_QUANTITY),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _QUANTITY}, {"type": "number", "minimum": 0}]}),
]
# requests.cpu, count/deployments.apps, requests.nvidia.com/gpu
QuotaName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9./-]*[a-z0-9])?$")]
ResourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9./-]*[a-z0-9])?$")]
LabelName = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
    ),
]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
_Word = Annotated[str, StringConstraints(min_length=1)]

_OURS = ("airflow-cd/", "kubernetes.io/metadata.name")


class Rule(Frozen):
    """
    A rule of a Role, as RBAC has it.

    :param api_groups: API groups; the empty name is the core group
    :param resources: resources of these groups, in the plural
    :param verbs: what is allowed with them
    :param resource_names: names of single objects; empty means all
    """

    api_groups: tuple[str, ...] = ("",)
    resources: tuple[_Word, ...] = Field(min_length=1)
    verbs: tuple[_Word, ...] = Field(min_length=1)
    resource_names: tuple[_Word, ...] = ()


class Deployer(Frozen):
    """
    Who deploys into a namespace: a ServiceAccount that may do what deploying takes, there and nowhere else.

    :param service_account: its name; made here unless ``namespace`` says that it is another one's
    :param namespace: where that ServiceAccount is, such as that of Airflow's own workers
    :param secrets: whether it may write Secrets, which the target's ``app: {secrets: ...}`` needs. Kubernetes
        has no way to let it write its own ones only: it may then read all Secrets of the namespace.
    :param extra_rules: what else it may do in the namespace, for kinds that manifests have beside the usual
    """

    service_account: ObjectName = "deployer"
    namespace: DnsLabel | None = None
    secrets: bool = False
    extra_rules: tuple[Rule, ...] = ()


class Limits(Frozen):
    """
    What a container gets that says nothing, and the most and the least one may ask for.

    :param default: its limits
    :param default_request: its requests
    :param max: the most that a container may ask for
    :param min: the least that a container may ask for
    """

    default: dict[ResourceName, Amount] = Field(default_factory=dict)
    default_request: dict[ResourceName, Amount] = Field(default_factory=dict)
    max: dict[ResourceName, Amount] = Field(default_factory=dict)
    min: dict[ResourceName, Amount] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something(self) -> Limits:
        if not any((self.default, self.default_request, self.max, self.min)):
            raise ValueError("says nothing; write default, default_request, max or min, or leave it out")
        return self


class Network(Frozen):
    """
    Who may connect to and from the pods of a namespace. Whatever other policies there allow is allowed too.

    :param ingress: who may connect to them: anybody (``open``), the pods of the namespace, or ``none``
    :param from_namespaces: whose pods may connect to them as well
    :param egress: to whom they may connect: anybody (``open``), or the pods of the namespace and DNS
    :param to_namespaces: to whose pods they may connect as well
    """

    ingress: Literal["open", "namespace", "none"] = "namespace"
    from_namespaces: tuple[DnsLabel, ...] = ()
    egress: Literal["open", "namespace"] = "open"
    to_namespaces: tuple[DnsLabel, ...] = ()

    @model_validator(mode="after")
    def _not_for_nothing(self) -> Network:
        if self.from_namespaces and self.ingress == "open":
            raise ValueError("has from_namespaces, but `ingress: open` lets everybody in; remove one of them")
        if self.to_namespaces and self.egress == "open":
            raise ValueError("has to_namespaces, but `egress: open` lets everything out; remove one of them")
        return self


_SHORT = {
    "open": {"ingress": "open", "egress": "open"},
    "isolated": {"ingress": "namespace", "egress": "namespace"},
}


def _network(value: Any) -> Any:
    if isinstance(value, str):
        if value not in _SHORT:
            raise ValueError("is neither open nor isolated; write one of these, or a mapping")
        return _SHORT[value]
    return value


NetworkChoice = Annotated[
    Network,
    BeforeValidator(
        _network,
        json_schema_input_type=Literal["open", "isolated"] | Network,
    ),
]


class PullSecret(Frozen):
    """
    The login of a registry, for the images of a namespace's pods.

    :param name: of the Secret; ServiceAccounts of the namespace that are kept here use it, ``default`` too
    :param conn_id: Airflow connection of type ``docker``: registry, login and password
    """

    name: ObjectName
    conn_id: Annotated[str, StringConstraints(min_length=1)]


class Namespace(Frozen):
    """
    A namespace and what is kept there. What is not named here is not touched.

    :param name: name of the namespace
    :param labels: of the namespace, such as those of Pod Security admission
    :param deployer: the ServiceAccount that may deploy here; ``None`` creates none
    :param service_accounts: which there are, beside the deployer's and ``default``
    :param quota: ``spec.hard`` of a ResourceQuota
    :param limits: a LimitRange for containers
    :param network: the NetworkPolicies of the namespace
    :param pull_secrets: Secrets with logins of image registries
    """

    name: DnsLabel
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    deployer: Deployer | None = None
    service_accounts: tuple[ObjectName, ...] = ()
    quota: dict[QuotaName, Amount] = Field(default_factory=dict)
    limits: Limits | None = None
    network: NetworkChoice = Network(ingress="open", egress="open")
    pull_secrets: tuple[PullSecret, ...] = ()

    @field_validator("name")
    @classmethod
    def _not_kubernetes_own(cls, name: str) -> str:
        if name.startswith("kube-"):
            raise ValueError("is a namespace of Kubernetes itself (kube-...), which is not kept from here")
        return name

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, labels: dict[str, str]) -> dict[str, str]:
        for label in labels:
            if label.startswith(_OURS):
                raise ValueError(f"has {label}, which is set without you; remove it")
        return labels

    @field_validator("pull_secrets")
    @classmethod
    def _each_once(cls, secrets: tuple[PullSecret, ...]) -> tuple[PullSecret, ...]:
        names = [secret.name for secret in secrets]
        if len(set(names)) < len(names):
            raise ValueError("has two Secrets of one name; rename one of them")
        return secrets


# What the id of a cluster's DAG begins with.
CLUSTER_PREFIX = "cluster_"
# A service called "cluster" has DAGs that end like this.
_ENDS_OF_SERVICES = ("delivery", "deployment", "rollback", "drift")

KubernetesVersion = Annotated[str, StringConstraints(pattern=r"^1\.[0-9]{1,3}$")]


class Cluster(Frozen):
    """
    One cluster, and what is to be there.

    :param name: name of the cluster; its DAG is ``cluster_<name>``
    :param conn_id: Airflow connection of type ``kubernetes``; default: the cluster the worker is in, else
        its ``KUBECONFIG``
    :param context: context of the kubeconfig
    :param schedule: cron expression, in ``timezone``, of the runs that reconcile the namespaces and check the
        cluster
    :param timezone: zone of ``schedule``
    :param namespaces: those that are kept; all others are left alone
    :param on_removed: whether a namespace that left this list is reported with each run (``report``) or left
        alone silently (``keep``). No namespace is ever deleted.
    :param unready_after: how long a node may be not ready before that fails its task. The default is when
        Kubernetes begins to move its pods elsewhere (``tolerationSeconds`` of ``not-ready``).
    :param certificates_warn: how long before its end a certificate is warned of
    :param upgrade_to: the minor version whose removals are warned of; default: the one after the cluster's
    :param notify: notifications of what the runs find
    :param owner: owner of the DAG's tasks in Airflow
    """

    name: DnsLabel
    conn_id: str | None = None
    context: str | None = None
    schedule: Cron = "*/30 * * * *"
    timezone: ZoneName = "UTC"
    namespaces: tuple[Namespace, ...] = ()
    on_removed: Literal["keep", "report"] = "report"
    unready_after: Duration = timedelta(minutes=5)
    certificates_warn: Duration = timedelta(days=30)
    upgrade_to: KubernetesVersion | None = None
    notify: tuple[NotificationSettings, ...] = ()
    owner: Annotated[str, Field(min_length=1)] = "airflow"

    @property
    def dag_id(self) -> str:
        """Return the id of its DAG."""
        return f"{CLUSTER_PREFIX}{self.name}"

    @property
    def described(self) -> str:
        """Return which one it is, for people."""
        where = self.context or self.conn_id
        return f"{self.name} ({where})" if where else self.name

    @field_validator("name")
    @classmethod
    def _no_dag_of_a_service(cls, name: str) -> str:
        if name in _ENDS_OF_SERVICES:
            raise ValueError(f"cannot be {', '.join(_ENDS_OF_SERVICES)}: DAGs of services are called so")
        return name

    @field_validator("notify")
    @classmethod
    def _told_of_clusters(cls, notify: tuple[NotificationSettings, ...]) -> tuple[NotificationSettings, ...]:
        for notification in notify:
            notification.check(OF_CLUSTERS, "a cluster")
        return notify

    @field_validator("namespaces")
    @classmethod
    def _each_once(cls, namespaces: tuple[Namespace, ...]) -> tuple[Namespace, ...]:
        names = [namespace.name for namespace in namespaces]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"names {', '.join(twice)} twice; remove one of them")
        return namespaces
