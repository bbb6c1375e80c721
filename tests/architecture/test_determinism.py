"""Generated DAGs are the same in every process, else Airflow would add a DAG version with each parse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROBE = """
import runpy
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.models.serialized_dag import SerializedDagModel
for name, dag in sorted(runpy.run_path('dags/services.py').items()):
    if isinstance(dag, DAG):
        dag.fileloc = dag.relative_fileloc = 'services.py'
        print('HASH', name, SerializedDagModel.hash(DagSerialization.to_dict(dag)))
"""


def hashes(seed: str, home: Path) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed, "AIRFLOW_HOME": str(home)},
    )
    return [line for line in ran.stdout.splitlines() if line.startswith("HASH")]


def test_dags_are_identical_across_processes_and_hash_seeds(tmp_path: Path) -> None:
    first, second = hashes("1", tmp_path), hashes("77", tmp_path)
    assert len(first) >= 2
    assert first == second
