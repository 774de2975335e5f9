"""Golden files: a script, and exactly what it prints.

A file is a sequence of blocks, separated by blank lines: `#` lines that explain, command lines,
a line `----`, and the expected output. With KVSTORE_GOLDEN=rewrite in the environment the output
is written instead of compared; read the diff before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

__all__ = ("Block", "check", "parse", "render")

SEPARATOR = "----"


@dataclass
class Block:
    """A few commands and what they print together."""

    comments: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def parse(text: str) -> list[Block]:
    """The blocks of a file; raises ValueError for output without commands."""
    blocks: list[Block] = []
    for paragraph in text.strip().split("\n\n"):
        block = Block()
        lines = iter(paragraph.splitlines())
        for line in lines:
            if line == SEPARATOR:
                break
            (block.comments if line.startswith("#") else block.commands).append(line)
        block.expected = list(lines)
        if block.expected and not block.commands:
            raise ValueError(f"output without a command: {block.expected[0]!r}")
        blocks.append(block)
    return blocks


def render(blocks: Iterable[Block]) -> str:
    """The text that `parse` reads."""
    paragraphs = []
    for block in blocks:
        lines = block.comments + block.commands
        if block.commands:
            lines = [*lines, SEPARATOR, *block.expected]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


def check(path: Path, execute: Callable[[str], Iterable[str]]) -> None:
    """Runs a file's commands through `execute`, which gives the lines that a command prints."""
    before = path.read_text()
    blocks = parse(before)
    for block in blocks:
        block.expected = [line for command in block.commands for line in execute(command)]
    after = render(blocks)
    if os.environ.get("KVSTORE_GOLDEN") == "rewrite":
        path.write_text(after)
        return
    diff = unified_diff(before.splitlines(), after.splitlines(), "expected", "printed", lineterm="")
    assert after == before, f"{path.name}:\n" + "\n".join(diff)
