"""
What the size of the services file costs a task that starts: its process reads the file to make one DAG.

A file of 1,000 services against a file of one, each in a fresh process that names the DAG it wants as
Airflow's task runner does; the minimum of several, alternating. Wall seconds of load_dags, reading included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.parse import services_file
from benchmarks.report import Result, report

LIMIT = 1.3
ROUNDS = 15

CODE = """
import sys, time
import airflow.sdk
from airflow_cd.dag_factories import load_dags
start = time.perf_counter()
namespace = {}
load_dags(sys.argv[1], namespace)
seconds = time.perf_counter() - start
start = time.perf_counter()
open(sys.argv[1]).read()
print("RESULT", seconds - (time.perf_counter() - start), *namespace)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large, small = (services_file(Path(folder), n) for n in (args.services, 1))
        _start(large)  # as the DAG processor did before any task could start
        taken = [(_start(large), _start(small)) for _ in range(ROUNDS)]
    mine, reference = (min(row[column] for row in taken) for column in (0, 1))
    what = f"DAG of one among {args.services} services / of one alone"
    report([Result("task start", what, mine * 1000, reference * 1000, "ms", LIMIT)], args.json)


def _start(file: Path) -> float:
    """Return the seconds a task's process needs for its DAG."""
    env = {**os.environ, "_AIRFLOW_PARSING_CONTEXT_DAG_ID": "svc0_delivery"}
    ran = subprocess.run([sys.executable, "-c", CODE, str(file)], capture_output=True, text=True, env=env)
    words = next((line.split() for line in ran.stdout.splitlines() if line.startswith("RESULT")), None)
    if words is None:
        raise SystemExit(ran.stderr)
    assert words[2:] == ["svc0_delivery"], f"made {words[2:]}"
    return float(words[1])


if __name__ == "__main__":
    main()
