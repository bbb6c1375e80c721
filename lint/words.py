"""
Finds phrases that make documentation hard to read, in docstrings, comments, messages and Markdown.

``lint/words-allowed.txt`` has how many each file may still have. A file with more fails; one with fewer lets
``python lint/words.py --update`` lower its number, which never raises one. Without the file, ``--update``
writes the numbers of today.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = Path(__file__).with_name("words-allowed.txt")
_QUOTING = (Path(__file__).resolve(), ROOT / "tests" / "architecture" / "test_words.py")
REMEDIES = {
    "anew": "again",
    "somebody": "the actor: a person, another process, another deployment",
    "whoever": "the actor: the person who, the process that",
    "of which": "two sentences, or `whose`",
    "told": "the verb of what happens: report, set, pass, notify",
    "it is so": "the fact itself",
    "may not": "cannot, must not, or might not",
    "has to be": "must be, or requires",
}
_PHRASE = re.compile(
    r"\b(" + "|".join(phrase.replace(" ", r"\s+") for phrase in REMEDIES) + r")\b", re.IGNORECASE
)
_FENCE = re.compile(r"^( {0,3})(```+|~~~+).*?^ {0,3}\2[^\n]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`]*`")


class Hit(NamedTuple):
    """One phrase in a file."""

    line: int
    phrase: str


def hits_in(path: Path) -> list[Hit]:
    """
    Return the phrases in a Python or Markdown file, in the order of their lines.

    :raises SyntaxError: it is not Python
    """
    text = path.read_text(encoding="utf-8")
    parts = _prose_of_python(text) if path.suffix == ".py" else [(1, _without_code(text))]
    found = []
    for start, prose in parts:
        for match in _PHRASE.finditer(prose):
            line = start + prose.count("\n", 0, match.start())
            found.append(Hit(line, " ".join(match[1].lower().split())))
    return sorted(found)


def _prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line where each comment and string begins, and its text; docstrings are strings."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    block: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        # A phrase may cross the lines of a comment.
        if block and token.start[0] != last + 1:
            yield last - len(block) + 1, "\n".join(block)
            block = []
        block.append(token.string.lstrip("# "))
        last = token.start[0]
    if block:
        yield last - len(block) + 1, "\n".join(block)


def _without_code(text: str) -> str:
    """Leave out code, which may quote what it is about, and keep the lines."""
    text = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    return _CODE.sub(lambda match: "``" + "\n" * match[0].count("\n"), text)


def tracked_files(root: Path) -> list[Path]:
    """Return the Python and Markdown files of the repository, those that quote the phrases left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    files = [root / name for name in listed.stdout.splitlines()]
    return [path for path in files if path.exists() and path not in _QUOTING]


def read_allowed(file: Path) -> dict[str, int]:
    """Return how many phrases each file may have, by its path."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {path: int(count) for count, path in pairs}


def write_allowed(file: Path, counts: Mapping[str, int]) -> None:
    """Write how many phrases each file may have; files without any are left out."""
    lines = [f"{count:4d} {path}" for path, count in sorted(counts.items()) if count]
    head = "# Phrases that each file may still have; see lint/words.py. Numbers only go down.\n"
    file.write_text(head + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def lowered(allowed: Mapping[str, int], found: Mapping[str, int]) -> dict[str, int]:
    """Return the allowances, none of them raised."""
    return {path: min(count, found.get(path, 0)) for path, count in allowed.items()}


def check(root: Path, file: Path, update: bool) -> int:
    """
    Print what is wrong, and return the exit code.

    :param root: of the repository
    :param file: with the allowances
    :param update: lower the allowances where files have fewer phrases
    """
    hits = {str(path.relative_to(root)): hits_in(path) for path in tracked_files(root)}
    found = {path: len(one) for path, one in hits.items()}
    allowed = read_allowed(file)
    if update:
        allowed = lowered(allowed, found) if file.exists() else found
        write_allowed(file, allowed)
    failed = {path: one for path, one in hits.items() if len(one) > allowed.get(path, 0)}
    for path, one in failed.items():
        for hit in one:
            print(f"{path}:{hit.line}: {hit.phrase!r}: write {REMEDIES[hit.phrase]}")
        print(f"{path}: {len(one)} of these phrases, {allowed.get(path, 0)} are allowed")
    fewer = [path for path, count in allowed.items() if found.get(path, 0) < count]
    if fewer:
        print(f"{len(fewer)} files have fewer phrases than allowed; run: python lint/words.py --update")
    print(f"{sum(found.values())} phrases of the word list are left")
    return 1 if failed else 0


def main() -> int:
    """Check this repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--update", action="store_true", help="lower the allowances where files have fewer")
    return check(ROOT, ALLOWED, parser.parse_args().update)


if __name__ == "__main__":
    sys.exit(main())
