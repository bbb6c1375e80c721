"""The two services of the demonstration: real repositories, and the services file that names them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from demo.configuration import clean_environment
from demo.ports import first_free

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
        self.ports: dict[tuple[str, str], int] = {}
        for address in ADDRESSES:
            self.ports[address] = first_free(8101, self.ports.values())

    def prepare(self) -> None:
        """Make the repositories, still without a commit, and write the DAG folder."""
        for service in (HELLO, SHOUT):
            self._git(None, "init", "--quiet", "--bare", "--initial-branch=main", str(self._bare(service)))
            self._git(None, "init", "--quiet", "--initial-branch=main", str(self._work(service)))
        self.dags.mkdir()
        (self.dags / "services.py").write_text(_DAG_FILE)
        definition = {"services": [self._service(HELLO, "delivery"), self._service(SHOUT, "deployment")]}
        (self.dags / "services.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))

    def push_example(self, service: str) -> str:
        """Commit and push the example as it is, and return the SHA."""
        shutil.copytree(ROOT / "examples" / service, self._work(service), dirs_exist_ok=True)
        return self._push(service, f"First version of {service}")

    def push_bad_commit(self) -> str:
        """Push a commit to `shout` whose tests pass and that staging runs, but production cannot."""
        self._git(SHOUT, "apply", "--unidiff-zero", str(ROOT / "demo" / "shout_suffix.patch"))
        return self._push(SHOUT, "Shout with the environment's suffix")

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

    def _service(self, name: str, pipeline: str) -> dict[str, Any]:
        return {
            "name": name,
            "pipeline": pipeline,
            "source": {"repository": str(self._bare(name)), "branch": "main", "poll_interval": "1s"},
            "build": [["python", "-m", "compileall", "-q", "src"]],
            "test": {
                "unit": {
                    "commands": [["python", "-m", "pytest", "-q", "--junitxml=report.xml"]],
                    "junit": "report.xml",
                }
            },
            "package": {"archive": {"include": ["src/**"]}},
            "environments": [self._environment(name, stage) for stage in ("staging", "production")],
        }

    def _environment(self, service: str, name: str) -> dict[str, Any]:
        local: dict[str, Any] = {
            "command": ["python", "src/app.py"],
            "port": self.ports[service, name],
            "drain": "2s",
        }
        if (service, name) == (SHOUT, "staging"):
            # Somebody set this up for staging and forgot production: the bad commit finds out.
            local["env"] = {"SHOUT_SUFFIX": " (staging)"}
        check = {"http": "/healthz", "interval": "300ms", "healthy_after": 3, "failures": 2, "timeout": "30s"}
        environment: dict[str, Any] = {"name": name, "target": {"local": local}, "health": [check]}
        if (service, name) == (HELLO, "production"):
            environment["approval"] = {"expires_after": "1d"}
        return environment
