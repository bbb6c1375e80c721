"""Which names a pattern of services.yaml means."""

from __future__ import annotations

import pytest

from airflow_cd.packaging.archive import Patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("**", ["a", "a/b", ".hidden", "a\nb"], []),
        (".", ["a", "a/b"], []),
        ("*", ["a", ".hidden", "a\nb"], ["a/b"]),
        ("*.py", ["x.py", ".py"], ["a/x.py", "x.pyc", "x.py/y"]),
        ("**/*.py", ["x.py", "a/x.py", "a/b/x.py"], ["x.pyc", "x.py/y"]),
        ("src/*", ["src/a"], ["src", "src/a/b", "srcs/a"]),
        ("src/**", ["src/a", "src/a/b"], ["src", "srcs/a", "a/src/b"]),
        ("src/**/x", ["src/x", "src/a/b/x", "src/a/x/y"], ["src/xx", "x"]),
        ("src", ["src", "src/a", "src/a/b"], ["srcs", "a/src"]),
        ("src/", ["src/a"], ["srcs/a"]),
        ("./src", ["src/a"], ["a/src"]),
        ("**/node_modules", ["node_modules/a", "a/node_modules/b/c"], ["my_node_modules/a"]),
        ("**/__pycache__/**", ["__pycache__/a", "a/__pycache__/b"], ["__pycache__", "a__pycache__/b"]),
        ("a?c", ["abc"], ["ac", "a/c", "abcd"]),
        ("a[b]+(c)", ["a[b]+(c)", "a[b]+(c)/d"], ["ab", "a[b]+c"]),
    ],
)
def test_meaning(pattern: str, yes: list[str], no: list[str]) -> None:
    patterns = Patterns([pattern])
    assert [name for name in yes if not patterns.match(name)] == []
    assert [name for name in no if patterns.match(name)] == []


def test_one_of_several_is_enough() -> None:
    patterns = Patterns(["a", "*.py"])
    assert [name for name in ("a/b", "x.py", "b") if patterns.match(name)] == ["a/b", "x.py"]
    assert not Patterns([]).match("a")


@pytest.mark.timeout(20)
def test_a_long_row_of_wildcards_does_not_take_for_ever() -> None:
    assert not Patterns(["**/" * 40 + "x"]).match("a/" * 200)
