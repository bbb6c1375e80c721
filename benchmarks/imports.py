"""What ``import airflow_cd.dag_factories`` adds over ``import airflow.sdk``: milliseconds and modules."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.parse import run
from benchmarks.report import Result, report

LIMIT_MS = 60
ROUNDS = 7

CODE = """
import sys, time
start = time.perf_counter()
import airflow.sdk
# The names a DAG file takes from the SDK are loaded lazily: count them as the SDK's.
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, BaseOperatorLink, Label, Param, TaskGroup
middle = time.perf_counter()
before = len(sys.modules)
import airflow_cd.dag_factories
end = time.perf_counter()
print("RESULT", (end - middle) * 1000, (middle - start) * 1000, len(sys.modules) - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [run(CODE) for _ in range(ROUNDS)]
    added, sdk, modules = (statistics.median(column) for column in zip(*rows, strict=True))
    what = f"import airflow_cd.dag_factories over airflow.sdk (adds {int(modules)} modules)"
    report([Result("import", what, added, sdk, "ms", limit_value=LIMIT_MS)], args.json)


if __name__ == "__main__":
    main()
