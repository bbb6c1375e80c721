"""The guide about targets of other packages shows the example, and nothing that is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom_target"
GUIDE = ROOT / "docs" / "guides" / "write-a-target.md"
SUFFIXES = {"python": ".py", "toml": ".toml", "yaml": ".yaml"}
BLOCKS = [token for token in MarkdownIt().parse(GUIDE.read_text()) if token.type == "fence"]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.content.strip().partition("\n")[0][:40])
def test_every_block_is_part_of_the_example(block: object) -> None:
    content, language = getattr(block, "content", ""), getattr(block, "info", "")
    files = EXAMPLE.rglob(f"*{SUFFIXES[language]}")
    assert any(content in path.read_text() for path in files)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 6
