"""Services: the values a pipeline is generated from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from airflow_cd.model.analysis import Analysis
from airflow_cd.model.base import Argv, Duration, Env, Frozen, Name, RelativePath
from airflow_cd.model.environment import Environment
from airflow_cd.model.notification import OF_SERVICES, NotificationSettings
from airflow_cd.model.package import PackageSettings
from airflow_cd.model.repository_url import public_url
from airflow_cd.model.retention import Retention
from airflow_cd.model.runner import Runner
from airflow_cd.model.signing import SigningSettings
from airflow_cd.model.target_settings import Capability
from airflow_cd.model.window import Closed, Freeze, closed_because


class SourceSettings(Frozen):
    """
    Where a service's commits come from.

    :param repository: URL or absolute path git can read
    :param branch: the branch whose commits are released
    :param path: the service's folder in the repository; only commits that touch it start a pipeline
    :param poll_interval: how often the remote is asked for its branch heads
    :param conn_id: Airflow connection of type ``cd_git`` with the credentials, when the remote needs any
    :param revisions: which commits a run can be triggered with: those on ``branch``, or ``any`` commit that
        the git host hands out, which includes those of pull requests
    """

    repository: Annotated[str, StringConstraints(pattern=r"^[^-\s]\S*$")]
    branch: Annotated[str, StringConstraints(pattern=r"^[^-\s~^:?*\[\\][^\s~^:?*\[\\]*$")] = "main"
    path: RelativePath = "."
    poll_interval: Duration = timedelta(seconds=30)
    conn_id: str | None = None
    revisions: Literal["branch", "any"] = "branch"

    @property
    def public_repository(self) -> str:
        """Return the repository for everybody to read: without a user, and the token that may stand there."""
        return public_url(self.repository)


class BuildSettings(Frozen):
    """
    The commands that build a service, each an argv list, run one after the other in its tree.

    :param commands: argv lists, run one after the other in the service's folder
    :param env: environment variables of the commands
    :param timeout: how long all commands together may take
    """

    commands: tuple[Argv, ...] = ()
    env: Env = Field(default_factory=dict)
    timeout: Duration = timedelta(minutes=30)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"commands": data} if isinstance(data, (list, tuple)) else data


class TestSuite(Frozen):
    """
    One suite of tests.

    :param commands: argv lists, run one after the other in the built tree
    :param junit: JUnit XML report that the commands write: a path or a glob in the tree
    :param env: environment variables of the commands
    :param timeout: how long all commands together may take
    """

    __test__ = False

    commands: Annotated[tuple[Argv, ...], Field(min_length=1)]
    junit: RelativePath | None = None
    env: Env = Field(default_factory=dict)
    timeout: Duration = timedelta(minutes=30)


class Service(Frozen):
    """
    A service: how it is built, tested and packaged, and the environments its releases go through.

    :param name: name of the service; its DAG is ``<name>_<pipeline>``
    :param pipeline: ``delivery`` stops for a person before production, ``deployment`` promotes by itself
    :param source: where its commits come from
    :param runner: what runs the build and test commands: processes of the worker when it is ``None``
    :param build: the commands that build it
    :param test: its test suites by name; they run side by side
    :param package: what a release is made of
    :param signing: who signs the releases; ``None`` leaves them unsigned
    :param environments: the environments in the order a release goes through them; the last one is production
    :param analyses: how new releases are judged by metrics; strategies name them
    :param artifacts: URL of the artifact store; ``None`` is the folder named in ``[cd] data_dir``
    :param retention: what is kept of releases and workspaces when old ones are removed, beside all that an
        environment needs
    :param train: name of the release train by which alone production is reached
    :param freezes: dates on which nothing is deployed; those of the whole services file are among them
    :param notify: notifications of approvals that are needed, deployments and rollbacks
    :param owner: owner of the DAG's tasks in Airflow
    :param tags: tags of the DAG, beside those of this provider
    """

    name: Name
    pipeline: Literal["delivery", "deployment"]
    source: SourceSettings
    runner: Runner = None
    build: BuildSettings = BuildSettings.model_construct()
    test: dict[Name, TestSuite] = Field(default_factory=dict)
    package: PackageSettings = PackageSettings.model_construct()
    signing: SigningSettings | None = None
    environments: Annotated[tuple[Environment, ...], Field(min_length=1)]
    analyses: dict[Name, Analysis] = Field(default_factory=dict)
    artifacts: str | None = None
    retention: Retention = Retention.model_construct()
    train: Name | None = None
    freezes: tuple[Freeze, ...] = ()
    notify: tuple[NotificationSettings, ...] = ()
    owner: str = "airflow"
    tags: tuple[str, ...] = ()

    @field_validator("environments")
    @classmethod
    def _unique_names(cls, environments: tuple[Environment, ...]) -> tuple[Environment, ...]:
        names = [environment.name for environment in environments]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"environment {name!r} is listed twice; names are unique within a service")
            if name == "commits":
                raise ValueError("no environment can be called 'commits': that asset stands for the source")
        return environments

    @field_validator("notify")
    @classmethod
    def _told_of_services(cls, notify: tuple[NotificationSettings, ...]) -> tuple[NotificationSettings, ...]:
        for notification in notify:
            notification.check(OF_SERVICES, "a service")
        return notify

    @model_validator(mode="after")
    def _signed_where_demanded(self) -> Service:
        if self.signing is None:
            self._refuse(
                "verify",
                "demands signed releases, but nobody signs the releases of this service; "
                "add `signing: {conn_id: ...}` to it (or to `defaults`), or remove `verify`",
                lambda environment: environment.verify is not None,
            )
        return self

    @model_validator(mode="after")
    def _runs_what_is_packaged(self) -> Service:
        made = self.package.kind
        remedy = (
            "package an image: `package: {image: {repository: ...}}`"
            if made == "archive"
            else "remove `package.image`, or choose a target that runs images, such as docker"
        )
        self._refuse(
            "target",
            f"cannot run what this service is packaged as ({made}); {remedy}",
            lambda environment: environment.target.takes != made,
        )
        return self

    @model_validator(mode="after")
    def _strategies_that_can_be_had(self) -> Service:
        self._refuse(
            "strategy",
            "requires a target that can give a release a share of the requests, such as kubernetes; "
            "remove it, or write `rolling`",
            lambda environment: (
                environment.strategy is not None and not environment.target.can(Capability.STRATEGIES)
            ),
        )
        self._refuse(
            "drift",
            "requires a declarative target, such as kubernetes; remove it",
            lambda environment: (
                environment.drift is not None and not environment.target.can(Capability.DRIFT)
            ),
        )
        zones = {environment.drift.timezone for environment in self.environments if environment.drift}
        self._refuse(
            "drift",
            "is checked in one time zone for all environments of a service; write the same `timezone`",
            lambda environment: environment.drift is not None and len(zones) > 1,
        )
        known = ", ".join(sorted(self.analyses)) or "none"
        self._refuse(
            "strategy",
            f"names an analysis that the service does not have (it has: {known}); add it under `analyses`",
            lambda environment: (
                environment.strategy is not None
                and not set(environment.strategy.analyses) <= set(self.analyses)
            ),
        )
        return self

    def _refuse(self, field: str, problem: str, concerns: Callable[[Environment], bool]) -> None:
        """Raise for each environment it concerns, with the place, so that a services file's line is named."""
        wrong = [n for n, environment in enumerate(self.environments) if concerns(environment)]
        if not wrong:
            return
        raise ValidationError.from_exception_data(
            type(self).__name__,
            [
                {
                    "type": "value_error",
                    "loc": ("environments", n, field),
                    "input": self.environments[n].model_dump(mode="json", exclude_unset=True)[field],
                    "ctx": {"error": ValueError(problem)},
                }
                for n in wrong
            ],
        )

    def closed(self, environment: Environment, now: datetime) -> Closed | None:
        """Return why the environment cannot be deployed to at the aware time ``now``, or ``None``."""
        freezes = [freeze for freeze in self.freezes if freeze.concerns(environment.name)]
        return closed_because(environment.windows, now, freezes)

    @property
    def production(self) -> Environment:
        """Return the last environment."""
        return self.environments[-1]

    def environment(self, name: str) -> Environment:
        """
        Return the environment of this name.

        :raises KeyError: there is none
        """
        for environment in self.environments:
            if environment.name == name:
                return environment
        raise KeyError(name)
