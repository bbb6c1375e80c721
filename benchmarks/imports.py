"""
What ``import airflow_cd.dag_factories`` adds over ``import airflow.sdk``: milliseconds and modules.

Every task that starts and every DAG file that is parsed pays it. CPU time, the least of several fresh
processes: what makes one take longer is something else on the machine (as the documentation of Python's
``timeit`` has it). It fails as well when a vendor's library is among the modules, whatever the time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.parse import run
from benchmarks.report import Result, report

LIMIT_MS = 60
ROUNDS = 15
VENDORS = (
    *("docker", "kubernetes", "kubernetes_asyncio", "boto3", "botocore", "fastapi"),
    *("airflow.providers.docker", "airflow.providers.cncf", "airflow.providers.amazon"),
)

CODE = """
import json, sys, time
start = time.process_time()
import airflow.sdk
# The names a DAG file takes from the SDK are loaded lazily: count them as the SDK's.
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator, BaseOperatorLink, Label, Param, TaskGroup
middle = time.process_time()
before = set(sys.modules)
import airflow_cd.dag_factories
end = time.process_time()
added = sorted(set(sys.modules) - before)
print("RESULT", json.dumps([(end - middle) * 1000, (middle - start) * 1000, added]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run(CODE)  # may have to compile the modules first, once
    rows = [run(CODE) for _ in range(ROUNDS)]
    added, sdk = (min(row[column] for row in rows) for column in (0, 1))
    modules = rows[0][2]
    vendors = [name for name in modules if f"{name}.".startswith(tuple(f"{vendor}." for vendor in VENDORS))]
    if vendors:
        raise SystemExit(f"parsing a DAG file imports {', '.join(vendors)}")
    what = f"import airflow_cd.dag_factories over airflow.sdk (adds {len(modules)} modules, none of a vendor)"
    report([Result("import", what, added, sdk, "ms", limit_value=LIMIT_MS)], args.json)


if __name__ == "__main__":
    main()
