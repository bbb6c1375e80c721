"""Every change that users notice has a fragment with a name that towncrier reads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from airflow_cd import __version__

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "changelog.d"
NAME = re.compile(r"([0-9]+|[a-z][a-z0-9-]*)(\.[0-9]+)?\.(breaking|feature|fix|doc|misc)\.md")
NO_FRAGMENTS = {"template.md.jinja"}


def fragments() -> list[Path]:
    return [path for path in FOLDER.iterdir() if path.name not in NO_FRAGMENTS]


def test_every_fragment_has_a_valid_name_and_says_something() -> None:
    for path in fragments():
        assert NAME.fullmatch(path.name), f"{path.name}: name it <issue or words>.<kind>.md"
        assert path.read_text().strip(), f"{path.name} is empty"


def test_towncrier_puts_every_fragment_into_the_next_release() -> None:
    argv = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "99.0"]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    said = " ".join(ran.stdout.split())
    for path in fragments():
        assert " ".join(path.read_text().split()) in said


def test_the_changelog_has_the_version_of_the_package() -> None:
    assert f"\n## {__version__} (" in (ROOT / "CHANGELOG.md").read_text()
