"""
Building the DAGs of N services with load_dags against building as many raw DAGs, and with dag-factory.

The raw DAGs, and dag-factory's, have the same tasks and edges as bare ``BaseOperator``: per service a
delivery pipeline and a rollback DAG. Each is built in a process of its own, after ``airflow.sdk`` was
imported, alternating; the ratio is that of the medians of CPU seconds. Reading and validating YAML counts.
``first parse`` is that of a file that was edited, whose content is not remembered yet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import Result, report

LIMIT, FIRST_LIMIT, DAG_FACTORY_LIMIT, LINEAR_LIMIT = 1.5, 3.0, 0.5, 1.3
ROUNDS = 5
SIZES = (100, 1000, 5000)
_DAG_FACTORY = Path(__file__).parents[1] / ".bench" / "dag-factory"

SERVICE = """
  - name: svc{i}
    pipeline: delivery
    source: {{repository: "https://git.example/svc{i}.git", branch: main}}
    build: [[python, -m, compileall, src]]
    test:
      unit: {{commands: [[python, -m, pytest, --junitxml=report.xml]], junit: report.xml}}
    package: {{archive: {{include: ["src/**"]}}}}
    environments:
      - name: staging
        target: {{local: {{command: [python, src/app.py], port: {staging}}}}}
        health: [{{http: /healthz, interval: 1s, healthy_after: 3, timeout: 60s}}]
      - name: production
        target: {{local: {{command: [python, src/app.py], port: {production}}}}}
        health: [{{http: /healthz, interval: 1s, healthy_after: 3, timeout: 60s}}]
        approval: {{approvers: [alice, bob], expires_after: 3d}}
"""

OURS = """
import json, time
import airflow.sdk
from airflow_cd.dag_factories import load_dags
start = time.process_time()
namespace = {{}}
load_dags({file!r}, namespace)
seconds = time.process_time() - start
shapes = []
for dag in (namespace["svc0_delivery"], namespace["svc0_rollback"]):
    ids = [task.task_id for task in dag.tasks]
    edges = [(ids.index(one.task_id), ids.index(two)) for one in dag.tasks for two in one.downstream_task_ids]
    shapes.append((len(ids), edges))
print("RESULT", json.dumps([seconds, len(namespace), shapes]))
"""

RAW = """
import json, time
from airflow.sdk import DAG, BaseOperator
shapes = {shapes!r}
start = time.process_time()
for i in range({n}):
    for kind, (tasks, edges) in enumerate(shapes):
        with DAG(f"raw{{i}}_{{kind}}", schedule=None, catchup=False):
            made = [BaseOperator(task_id=f"t{{j}}") for j in range(tasks)]
            for before, after in edges:
                made[before] >> made[after]
print("RESULT", json.dumps([time.process_time() - start]))
"""

DAG_FACTORY = """
import json, sys, time
sys.path.append({path!r})
import airflow.sdk
from dagfactory import load_yaml_dags
start = time.process_time()
namespace = {{}}
load_yaml_dags(namespace, config_filepath={file!r}, defaults_config_path={folder!r})
seconds = time.process_time() - start
print("RESULT", json.dumps([seconds, len([name for name in namespace if name.startswith("raw")])]))
"""


def run(code: str) -> list[Any]:
    """Run the code in a new interpreter and return what it printed."""
    # A process that cannot write what it compiled would compile Airflow again and again.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT"))
    result: list[Any] = json.loads(line.removeprefix("RESULT"))
    return result


def services_file(folder: Path, n: int) -> Path:
    """Write a services file of ``n`` services."""
    file = folder / f"services{n}.yaml"
    entries = [SERVICE.format(i=i, staging=10000 + i, production=30000 + i) for i in range(n)]
    file.write_text("services:" + "".join(entries))
    return file


def dag_factory_file(folder: Path, n: int, shapes: list[Any]) -> Path:
    """Write the same DAGs of bare operators for dag-factory, installing that where it is missing."""
    if not (_DAG_FACTORY / "dagfactory").exists():
        uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*uv, "--target", str(_DAG_FACTORY), "dag-factory==1.1.0"], check=True)
    dags: dict[str, Any] = {}
    for i in range(n):
        for kind, (tasks, edges) in enumerate(shapes):
            made: list[dict[str, Any]] = [
                {"task_id": f"t{j}", "operator": "airflow.sdk.BaseOperator", "dependencies": []}
                for j in range(tasks)
            ]
            for before, after in edges:
                made[after]["dependencies"].append(f"t{before}")
            dags[f"raw{i}_{kind}"] = {"schedule": None, "start_date": "2026-01-01", "tasks": made}
    file = folder / "dag_factory.yml"
    file.write_text(yaml.safe_dump(dags))
    return file


def first_parse(folder: Path, n: int, number: int) -> float:
    """Return the seconds for a file whose content was never seen."""
    file = services_file(folder, n)
    file.write_text(f"# edited: {number} {time.time()}\n{file.read_text()}")
    return float(run(OURS.format(file=str(file)))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(measure(Path(folder), args.services), args.json)


def measure(folder: Path, n: int) -> list[Result]:
    """Return the results for ``n`` services."""
    file = services_file(folder, n)
    _, found, shapes = run(OURS.format(file=str(file)))
    assert found == n * len(shapes), f"{found} DAGs of {n} services"
    peer = dag_factory_file(folder, n, shapes)
    ours, first, raw, factory = [], [], [], []
    for number in range(ROUNDS):
        ours.append(run(OURS.format(file=str(file)))[0])
        raw.append(run(RAW.format(n=n, shapes=shapes))[0])
        first.append(first_parse(folder, n, number))
        file = services_file(folder, n)
    for _ in range(2):
        code = DAG_FACTORY.format(path=str(_DAG_FACTORY), file=str(peer), folder=str(folder))
        seconds, found = run(code)
        assert found == n * len(shapes), f"dag-factory made {found} DAGs"
        factory.append(seconds)
    mine, theirs, factory_seconds = (statistics.median(one) for one in (ours, raw, factory))
    tasks = " and ".join(str(tasks) for tasks, _ in shapes)
    each = [min(run(OURS.format(file=str(services_file(folder, m))))[0] / m for _ in "123") for m in SIZES]
    return [
        Result("parse", f"{n} services by load_dags / raw DAGs of {tasks} tasks", mine, theirs, "s", LIMIT),
        Result(
            "first parse", "the same, of an edited file", statistics.median(first), theirs, "s", FIRST_LIMIT
        ),
        Result("dag-factory", "load_dags / dag-factory 1.1", mine, factory_seconds, "s", DAG_FACTORY_LIMIT),
        Result(
            "linear",
            f"per service: {SIZES[2]} / {SIZES[0]} services ({each[1] * 1000:.2f} ms at {SIZES[1]})",
            each[2] * 1000,
            each[0] * 1000,
            "ms",
            LINEAR_LIMIT,
        ),
    ]


if __name__ == "__main__":
    main()
