"""An Airflow with the auth manager of docker-compose.yaml, that of Flask AppBuilder: ids are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from harness.airflow import AirflowFailedError, RunningAirflow

_ADMIN = "admin"


class FabAirflow(RunningAirflow):
    """
    A running Airflow with FabAuthManager.

    :param users: user name -> role, as FAB calls it; ``admin`` comes in addition
    :param settings: of :class:`RunningAirflow`
    """

    def __init__(self, home: Path, *, users: Mapping[str, str], **settings: Any) -> None:
        manager = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        extra = {**settings.pop("extra_config", {}), "AIRFLOW__CORE__AUTH_MANAGER": manager}
        self._roles, self._has_admin = users, False
        super().__init__(home, users={_ADMIN: "Admin", **users}, extra_config=extra, **settings)

    def prepare(self) -> None:
        """
        Write the folder and the metadata database, with ``admin`` as docker-compose.yaml makes it.

        :raises AirflowFailedError: the database, or the user, cannot be made
        """
        super().prepare()
        if self._has_admin:
            return
        login = ("--username", _ADMIN, "--password", self.password(_ADMIN), "--role", "Admin")
        person = ("--firstname", "Admin", "--lastname", "Admin", "--email", "admin@example.org")
        done = self.run("users", "create", *login, *person, timeout=300)
        if done.returncode != 0:
            raise AirflowFailedError(f"`airflow users create` ended with {done.returncode}:\n{done.stderr}")
        self._has_admin = True

    def start(self, timeout: float = 240) -> None:
        """Start all components, and let the administrator enter the users over the API."""
        super().start(timeout)
        for name, role in self._roles.items():
            user = {
                "username": name,
                "password": self.password(name),
                "roles": [{"name": role}],
                "email": f"{name}@example.org",
                "first_name": name.title(),
                "last_name": "Example",
            }
            self.api.request("POST", "/auth/fab/v1/users", json=user)
        self._roles = {}

    def user_id(self, name: str) -> str:
        """Return the id that Airflow knows this user by."""
        login = {"username": name, "password": self.password(name)}
        answer = httpx.post(f"{self.url}/auth/token", json=login, timeout=120, trust_env=False)
        token = answer.raise_for_status().json()["access_token"]
        return str(jwt.decode(token, options={"verify_signature": False})["sub"])
