"""
Building N delivery DAGs with load_dags against N raw DAGs of as many bare BaseOperators and edges.

Both are built in one process each, after ``airflow.sdk`` was imported, alternating; the ratio is that of
the medians. Reading and validating the YAML counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Result, report

LIMIT = 1.5
ROUNDS = 5

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
import sys, time, gc
import airflow.sdk
from airflow_cd.dag_factories import load_dags
start = time.process_time()
namespace = {{}}
load_dags({file!r}, namespace)
seconds = time.process_time() - start
dag = namespace["svc0_delivery"]
edges = sum(len(task.downstream_task_ids) for task in dag.tasks)
print("RESULT", seconds, len(namespace), len(dag.tasks), edges)
"""

RAW = """
import time
from datetime import timedelta
from airflow.sdk import DAG, BaseOperator
n, tasks, edges = {n}, {tasks}, {edges}
start = time.process_time()
for i in range(n):
    with DAG(f"raw{{i}}", schedule=None, catchup=False):
        made = [BaseOperator(task_id=f"t{{j}}") for j in range(tasks)]
        pairs = ((a, b) for gap in range(1, tasks) for a, b in zip(made, made[gap:]))
        for (upstream, downstream), _ in zip(pairs, range(edges)):
            upstream >> downstream
print("RESULT", time.process_time() - start, n, tasks, edges)
"""


def run(code: str) -> list[float]:
    """Run the code in a new interpreter and return the numbers it printed."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    line = next(line for line in ran.stdout.splitlines() if line.startswith("RESULT"))
    return [float(number) for number in line.split()[1:]]


def services_file(folder: Path, n: int) -> Path:
    file = folder / f"services{n}.yaml"
    # Ports repeat beyond the range; hosts differ, so that no two services claim the same address.
    entries = [SERVICE.format(i=i, staging=10000 + i, production=30000 + i) for i in range(n)]
    file.write_text("services:" + "".join(entries))
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ours, raw = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = services_file(Path(folder), args.services)
        for _ in range(ROUNDS):
            seconds, n, tasks, edges = run(OURS.format(file=str(file)))
            assert n == args.services, f"{n} DAGs instead of {args.services}"
            ours.append(seconds)
            raw.append(run(RAW.format(n=int(n), tasks=int(tasks), edges=int(edges)))[0])
    mine, theirs = statistics.median(ours), statistics.median(raw)
    what = f"{args.services} services by load_dags / raw DAGs of {int(tasks)} tasks and {int(edges)} edges"
    report([Result("parse", what, mine, theirs, "s", LIMIT)], args.json)


if __name__ == "__main__":
    main()
