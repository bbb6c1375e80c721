"""The two services of the demonstration: real repositories, and the services file that names them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from harness.component import clean_environment
from harness.ports import first_free

ROOT = Path(__file__).parents[1]
HELLO, SHOUT = "hello", "shout"
ADDRESSES = ((HELLO, "staging"), (HELLO, "production"), (SHOUT, "staging"), (SHOUT, "production"))

_AUTHOR = {"NAME": "Ada Demo", "EMAIL": "ada@example.org"}
_DAG_FILE = (ROOT / "dags" / "services.py").read_text()


class Workshop:
    """
    Makes repositories and commits, and the DAG folder.

    :param folder: an empty folder
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dags = folder / "dags"
        self.ports = {address: first_free(8101) for address in ADDRESSES}

    def prepare(self) -> None:
        """Make the repositories, still without a commit, and write the DAG folder."""
        for service in (HELLO, SHOUT):
            self._git(None, "init", "--quiet", "--bare", "--initial-branch=main", str(self._bare(service)))
            self._git(None, "init", "--quiet", "--initial-branch=main", str(self._work(service)))
        self.dags.mkdir()
        (self.dags / "services.py").write_text(_DAG_FILE)
        (self.dags / "services.yaml").write_text(yaml.safe_dump(self._definition(), sort_keys=False))

    def push_example(self, service: str) -> str:
        """Commit and push the example as it is, and return the SHA."""
        shutil.copytree(ROOT / "examples" / service, self._work(service), dirs_exist_ok=True)
        return self._push(service, f"First version of {service}")

    def push_bad_commit(self) -> str:
        """Push a commit to `shout` whose tests pass and that staging runs, but production cannot."""
        self._git(SHOUT, "apply", str(ROOT / "demo" / "shout_suffix.patch"))
        return self._push(SHOUT, "Shout with the environment's suffix")

    def push_leak(self) -> str:
        """Take that back, and push a commit to `shout` that is healthy for its first sixty answers."""
        self._git(SHOUT, "apply", "--reverse", str(ROOT / "demo" / "shout_suffix.patch"))
        self._git(SHOUT, "apply", str(ROOT / "demo" / "shout_leak.patch"))
        return self._push(SHOUT, "Remember what was shouted")

    def url(self, service: str, environment: str) -> str:
        """Return where the service answers."""
        return f"http://127.0.0.1:{self.ports[service, environment]}/"

    def _push(self, service: str, message: str) -> str:
        self._git(service, "add", "--all")
        self._git(service, "commit", "--quiet", f"--message={message}")
        self._git(service, "push", "--quiet", str(self._bare(service)), "main")
        return self._git(service, "rev-parse", "HEAD")

    def _git(self, service: str | None, *args: str) -> str:
        identity = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in _AUTHOR.items()}
        env = clean_environment({**identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"})
        cwd = self._work(service) if service else self.folder
        ran = subprocess.run(["git", *args], cwd=cwd, env=env, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"git {args[0]} failed: {ran.stderr.strip()}")
        return ran.stdout.strip()

    def _bare(self, service: str) -> Path:
        return self.folder / "git" / f"{service}.git"

    def _work(self, service: str) -> Path:
        return self.folder / "work" / service

    def _definition(self) -> dict[str, Any]:
        """Return ``dags/services.yaml`` with this machine's repositories and ports, and shorter waits."""
        definition: dict[str, Any] = yaml.safe_load((ROOT / "dags" / "services.yaml").read_text())
        for service in definition["services"]:
            name = service["name"]
            service["source"] = {"repository": str(self._bare(name)), "branch": "main", "poll_interval": "1s"}
            for environment in service["environments"]:
                local = environment["target"]["local"]
                local.update(port=self.ports[name, environment["name"]], drain="2s")
                environment["health"][0].update(interval="300ms", failures=2)
                if (name, environment["name"]) == (SHOUT, "staging"):
                    # A person set this up for staging and forgot production: the bad commit finds out.
                    local["env"] = {"SHOUT_SUFFIX": " (staging)"}
        return definition
