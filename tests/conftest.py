"""What all tests share: an Airflow home of their own, never the user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Before anything imports Airflow, which reads it once.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="cd-tests-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
for name in [name for name in os.environ if name.startswith(("GIT_", "AIRFLOW_CONN_"))]:
    del os.environ[name]

ROOT = Path(__file__).parents[1]
