"""A few bytes of YAML that would end the interpreter, or take all memory or time: an error with its line."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: what these did was to end it.
_LOAD = """
import sys
from pathlib import Path
from airflow_cd.exceptions import DefinitionError
from airflow_cd.model.services_file.loader import load_services
try:
    found = load_services(Path(sys.argv[1]))
except DefinitionError as error:
    print(error)
else:
    print("\\n".join(str(error) for error in found.errors))
"""

NESTED_MERGES = "x0: &x0 {a: 1}\n" + "".join(
    f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)
LAUGHS = "x0: &x0 [a]\n" + "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 12))
UNKNOWN = "services:\n- name: hello\n" + "".join(f"  key{n}: 1\n" for n in range(50_000))


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: " + "[" * 100_000, "yaml:1: .*nested too deeply, more than 100 levels"),
        ("services: " + "{a: " * 100_000, "yaml:1: .*nested too deeply"),
        ("services:\n" + "- " * 100_000 + "x", "yaml:2: .*nested too deeply"),
        ("".join(" " * n + "a:\n" for n in range(300)), "yaml:101: .*nested too deeply"),
        (NESTED_MERGES, "with its aliases written out this is larger than 16 MiB"),
        (LAUGHS, "with its aliases written out this is larger than 16 MiB"),
        ("x: &x [*x]", "contains itself"),
        ("services: 1" + ":30" * 100_000, "yaml:1: .*a number of 300001 characters"),
        ("services: 1" + "0" * 1_000_000, "yaml:1: .*a number of 1000001 characters"),
        (UNKNOWN, "unknown key 'key0'(.|\\n)*there are 499.. more errors"),
        ("a: " + "x" * (17 << 20), "larger than 16 MiB"),
    ],
    ids=[
        "lists",
        "mappings",
        "dashes",
        "indents",
        "merges",
        "laughs",
        "self",
        "base60",
        "long",
        "keys",
        "size",
    ],
)
def test_it_is_an_error_and_takes_little(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(text)
    run = subprocess.run(
        [sys.executable, "-c", _LOAD, str(path)],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert re.search(says, run.stdout), run.stdout[:1000]
