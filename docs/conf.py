"""Configuration of the documentation site: ``make docs`` builds it, with warnings as errors."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE / "_extensions"))
# The command line reference imports Airflow, which writes a configuration file where there is none.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-cd-docs-")
os.environ["AIRFLOW_HOME"] = _HOME.name

project = "airflow-provider-cd"
author = "the contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# References of annotations lead to classes that have no page; everything else must resolve.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:class",
        r"(airflow|collections|pathlib)\..*|airflow_cd\.(model|operators\.gates)\..*|Service|Context",
    ),
    ("py:exc", r"Airflow.*|Task(Deferred|AwaitingInput)"),
]
html_theme = "furo"
html_title = "airflow-provider-cd"
# Sources are on GitHub; a copy of each page is not needed.
html_copy_source = False
