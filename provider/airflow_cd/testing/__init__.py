"""
What authors of a target test it with. It needs ``pytest``.

``docs/guides/write-a-target.md`` shows how it is used.
"""

import sys

# Only a test run is to show the values in a failed assertion; other processes never load pytest.
if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite("airflow_cd.testing.target_conformance")
