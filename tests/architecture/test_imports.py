"""What parsing a DAG file may load: judged in a fresh process, where indirect imports show."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_cd

ROOT = Path(__file__).parents[2]
HEAVY = (
    "docker",
    "kubernetes",
    "kubernetes_asyncio",
    "boto3",
    "botocore",
    "cyclonedx",
    "defusedxml",
    "securesystemslib",
    "supervisor",
    "airflow.providers.docker",
    "airflow.providers.cncf",
    "airflow.providers.amazon",
)
# The server-side web stack; Airflow's own SDK may load fastapi for its data models, so it is compared
# against what the SDK loads by itself.
WEB = ("fastapi", "uvicorn", "starlette")

PROBE = """
import json, sys
{first}
before = set(sys.modules)
{then}
print("PROBE" + json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(then: str, first: str = "import airflow.sdk", **environment: str) -> set[str]:
    """Return the modules that ``then`` loads in a new interpreter, after ``first``."""
    ran = subprocess.run(
        [sys.executable, "-c", PROBE.format(first=first, then=then)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    line = next(line for line in ran.stdout.splitlines() if line.startswith("PROBE"))
    return set(json.loads(line.removeprefix("PROBE")))


def offenders(modules: set[str], names: tuple[str, ...]) -> list[str]:
    return sorted(
        module
        for module in modules
        if module.startswith(tuple(f"{name}." for name in names)) or module in names
    )


def public_modules() -> list[str]:
    found = pkgutil.walk_packages(airflow_cd.__path__, "airflow_cd.")
    # launch.py is a program of its own, run by path; importing it would start it.
    return sorted(module.name for module in found if not module.ispkg and "cli.commands" not in module.name)


BLAME = """
import importlib
for name in {modules!r}:
    before_one = set(sys.modules)
    importlib.import_module(name)
    for loaded in sorted(set(sys.modules) - before_one):
        if loaded.split(".")[0] in {heavy!r} or loaded.startswith({heavy!r}):
            raise SystemExit(f"{{name}} loads {{loaded}}")
"""


def test_no_module_loads_a_vendor_library() -> None:
    loaded_by(BLAME.format(modules=public_modules(), heavy=HEAVY + WEB))


def test_the_probe_finds_one() -> None:
    with pytest.raises(AssertionError, match="supervisor.xmlrpc loads supervisor"):
        loaded_by(BLAME.format(modules=["supervisor.xmlrpc"], heavy=HEAVY + WEB))


def test_a_dag_file_loads_no_vendor_library(tmp_path: Path) -> None:
    code = "import runpy; runpy.run_path('dags/services.py')"
    assert offenders(loaded_by(code, AIRFLOW_HOME=str(tmp_path)), HEAVY + WEB) == []


def test_provider_discovery_does_not_import_airflow() -> None:
    modules = loaded_by(
        "import airflow_cd.get_provider_info as info; info.get_provider_info()", first="import json"
    )
    assert offenders(modules, ("airflow", "pydantic")) == []


def test_parsing_opens_no_socket_and_reads_no_variable(tmp_path: Path) -> None:
    code = """
import socket, runpy
def refuse(*args, **kwargs):
    raise AssertionError('network at parse time')
socket.socket.connect = refuse
from airflow.sdk import BaseHook, Variable
BaseHook.get_connection = Variable.get = refuse
assert any(key.endswith('_delivery') for key in runpy.run_path('dags/services.py'))
"""
    loaded_by(code, AIRFLOW_HOME=str(tmp_path))
