"""How much of a command's output is handed on."""

from __future__ import annotations

from airflow_cd.runners.lines import LimitedLines


def test_output_without_end_does_not_fill_the_log() -> None:
    shown: list[str] = []
    lines = LimitedLines(shown.append, 10_000)
    for number in range(100_000):
        lines.add(f"line {number}")
    lines.close()
    assert sum(len(line) for line in shown) < 12_000
    assert shown[:2] == ["line 0", "line 1"] and shown[-1] == "line 99999"
    assert any("longer than 10000 bytes ([cd] command_log_bytes)" in line for line in shown)
    assert any("lines are not in this log; the last of them:" in line for line in shown)


def test_a_short_output_is_handed_on_as_it_is() -> None:
    shown: list[str] = []
    lines = LimitedLines(shown.append, 10_000)
    lines.add("one")
    lines.add("")
    lines.close()
    assert shown == ["one", ""]
