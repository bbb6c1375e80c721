"""What a release consists of in Kubernetes, where the source says it: rendered when it is packaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import ManifestError

if TYPE_CHECKING:
    from airflow_cd.artifacts.base import ArtifactStore
    from airflow_cd.model.service import Service

log = logging.getLogger(__name__)


def keep_manifests(service: Service, store: ArtifactStore, tree: Path, digest: str) -> dict[str, str]:
    """
    Render the manifests of each environment that has some, and keep them in the artifact store.

    :param tree: the workspace that was built
    :param digest: of the release's image
    :return: environment -> digest of its objects
    :raises AirflowFailException: they cannot be deployed; the same tree fails again in the same way
    """
    from airflow_cd.artifacts.manifests import canonical, described, render

    image = service.package.image
    kept = {}
    for environment in service.environments:
        settings = environment.target.kubernetes
        if settings is None or settings.manifests is None:
            continue
        assert image is not None  # as the model makes sure
        try:
            objects = render(tree, settings.manifests, image=image.repository, digest=digest)
        except ManifestError as error:
            raise AirflowFailException(f"manifests of {environment.name}: {error}") from error
        kept[environment.name] = store.put_bytes(canonical(objects))
        names = ", ".join(described(one) for one in objects)
        log.info("Manifests of %s: %s: %s", environment.name, names, kept[environment.name])
    return kept
