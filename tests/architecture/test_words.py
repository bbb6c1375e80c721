"""The word list finds what it is to find, and allowances only go down."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lint import words

PYTHON = '''"""Somebody was told,
and it has to  be so."""

# None of
# which counts twice.
told = 1
message = f"{told} may not"
'''
MARKDOWN = """# Whoever

`anew` is code, and so is

```text
told
```

anew
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "one.py").write_text(PYTHON)
    (tmp_path / "two.md").write_text(MARKDOWN)
    return tmp_path


def test_phrases_are_found_in_prose_and_not_in_code(repository: Path) -> None:
    assert words.hits_in(repository / "one.py") == [
        *((1, "somebody"), (1, "told"), (2, "has to be"), (4, "of which"), (7, "may not"))
    ]
    assert words.hits_in(repository / "two.md") == [(1, "whoever"), (9, "anew")]


def test_a_file_with_more_than_allowed_fails(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allowed = repository / "allowed.txt"
    words.write_allowed(allowed, {"one.py": 5, "two.md": 1})
    assert words.check(repository, allowed, update=False) == 1
    said = capsys.readouterr().out
    assert "two.md:9: 'anew': write again" in said
    assert "one.py:" not in said


def test_allowances_only_go_down(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allowed = repository / "allowed.txt"
    words.write_allowed(allowed, {"one.py": 9, "two.md": 1, "gone.md": 3})
    assert words.check(repository, allowed, update=False) == 1
    assert "2 files have fewer phrases than allowed" in capsys.readouterr().out
    words.check(repository, allowed, update=True)
    assert words.read_allowed(allowed) == {"one.py": 5, "two.md": 1}


def test_without_allowances_an_update_writes_those_of_today(repository: Path) -> None:
    allowed = repository / "allowed.txt"
    assert words.check(repository, allowed, update=True) == 0
    assert words.read_allowed(allowed) == {"one.py": 5, "two.md": 2}
