"""Creates the source, store, runner and target that a service configures, with Airflow's connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_cd.exceptions import ArtifactError, RunnerError

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.runner import DockerRunnerSettings, KubernetesRunnerSettings
    from airflow_cd.model.service import Service
    from airflow_cd.runners.base import Runner
    from airflow_cd.sources.checkout import TreeLimits
    from airflow_cd.sources.git import GitSource
    from airflow_cd.stores.base import ArtifactStore
    from airflow_cd.targets.base import Target


def data_dir() -> Path:
    """Return the folder ``[cd] data_dir``, made when it does not exist."""
    from airflow.configuration import AIRFLOW_HOME, conf

    configured = conf.get("cd", "data_dir", fallback="") or f"{AIRFLOW_HOME}/cd"
    folder = Path(configured.replace("{AIRFLOW_HOME}", AIRFLOW_HOME)).expanduser().absolute()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Nobody else of the machine looks at what is built, or sees logs and records. An administrator who
        # wants a group to, makes the folder before.
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def store_url(service: Service) -> str:
    """Return the URL of the artifact store the service's releases lie in."""
    from airflow.configuration import conf

    configured = service.artifacts or conf.get("cd", "artifacts", fallback="")
    return configured or (data_dir() / "artifacts").as_uri()


def open_store(url: str) -> ArtifactStore:
    """
    Return the artifact store at this URL.

    :raises ArtifactError: the scheme is unknown
    """
    from airflow_cd.stores import registry

    return registry.open_store(url)


def open_runner(service: Service) -> Runner:
    """
    Return what runs the service's build and test commands.

    :raises RunnerError: ``[cd] build_group`` names users that cannot run them
    """
    if service.runner is None:
        return _machine_runner()
    if service.runner.docker is not None:
        return _docker_runner(service.runner.docker)
    assert service.runner.kubernetes is not None
    return _kubernetes_runner(service.runner.kubernetes)


def _machine_runner() -> Runner:
    from airflow.configuration import conf

    from airflow_cd.processes.build_users import users_of
    from airflow_cd.runners import registry

    group = conf.get("cd", "build_group", fallback="")
    if not group:
        return registry.open_runner("subprocess")
    users = users_of(group)
    _close_to_others(data_dir())
    return registry.open_runner("build_users", users)


def _close_to_others(folder: Path) -> None:
    """
    Take what other users of the machine may do with a folder: builds run as such users.

    :raises RunnerError: it belongs to another user
    """
    mode = folder.stat().st_mode
    if not mode & 0o007:
        return
    try:
        folder.chmod(mode & 0o7770)
    except PermissionError as error:
        raise RunnerError(
            f"[cd] data_dir {folder} is open to all users, and so to builds: chmod o-rwx {folder}"
        ) from error


def _docker_runner(settings: DockerRunnerSettings) -> Runner:
    from airflow_cd.hooks.docker import docker_client
    from airflow_cd.runners import registry

    return registry.open_runner("docker", settings, lambda: docker_client(settings.engine, settings.conn_id))


def _kubernetes_runner(settings: KubernetesRunnerSettings) -> Runner:
    from airflow_cd.hooks.kubernetes import kubernetes_client
    from airflow_cd.runners import registry

    return registry.open_runner(
        "kubernetes", settings, lambda: kubernetes_client(settings.conn_id, settings.context)
    )


def open_source(service: Service) -> AbstractContextManager[GitSource]:
    """Open the service's repository; see :func:`open_repository`."""
    source = service.source
    return open_repository(source.repository, source.path, source.conn_id)


@contextmanager
def open_repository(repository: str, path: str, conn_id: str | None) -> Iterator[GitSource]:
    """Open one folder of a repository with the credentials of the connection, which are gone afterwards."""
    from airflow_cd.sources.git import GitSource

    source = partial(GitSource, repository, path=path, cache_dir=data_dir() / "git", limits=_tree_limits())
    if conn_id is None:
        yield source()
        return
    from airflow_cd.hooks.git import GitHook

    with GitHook(conn_id).environment() as env:
        yield source(env=env)


def _tree_limits() -> TreeLimits:
    from airflow.configuration import conf

    from airflow_cd.sources.checkout import TreeLimits

    usual = TreeLimits()
    return TreeLimits(
        conf.getint("cd", "source_max_files", fallback=usual.files),
        conf.getint("cd", "source_max_bytes", fallback=usual.size),
    )


def open_target(service: Service, environment: Environment) -> Target:
    """Return where the service runs in this environment."""
    return open_environment(service.name, environment)


def open_environment(service: str, environment: Environment, *, looks_only: bool = False) -> Target:
    """
    Return where the service of this name runs in this environment.

    :param looks_only: whether the target is only asked what runs: its clients soon give up then
    """
    from airflow_cd.hooks.clients import CLIENTS, LOOKING_CLIENTS
    from airflow_cd.hooks.docker import password_of
    from airflow_cd.packaging.archive import unpack
    from airflow_cd.targets import registry
    from airflow_cd.targets.base import Access

    access = Access(data_dir(), unpack, password_of, LOOKING_CLIENTS if looks_only else CLIENTS)
    return registry.open_target(service, environment, access)


@contextmanager
def scratch_dir(prefix: str) -> Iterator[Path]:
    """
    Open an empty folder for a task's work; it is gone afterwards.

    :raises ArtifactError: there is no room for it, or for what was to be written there
    """
    from airflow_cd.processes.disk import is_full, write_problem
    from airflow_cd.processes.scratch import scratch_folder

    root = data_dir() / "scratch"
    try:
        with scratch_folder(root, prefix) as folder:
            yield folder
    except OSError as error:
        if is_full(error):
            raise ArtifactError(f"no work can be done: {write_problem(error, root)}") from error
        raise
