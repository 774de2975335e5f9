"""Runs the examples of a document: they must print what they say they print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

__all__ = ("run_examples",)


def run_examples(
    document: Path,
    endpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    at_least: int = 9,
) -> dict[str, Any]:
    """Run the Python blocks one after the other against `endpoint`; returns their names.

    `endpoint` may be several, separated by commas.
    """
    blocks = re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)
    assert len(blocks) >= at_least
    names: dict[str, Any] = {}
    for block in blocks:
        source = re.sub(r"127\.0\.0\.1:2379(,127\.0\.0\.1:\d+)*", endpoint, block)
        source = source.replace("/tmp/", f"{tmp_path}/")
        exec(compile(source, document.name, "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = re.findall(r"print\(.*#\s*(.*)", source)
        for line in promised:
            for part in re.split(r", then |: |; ", line)[:1]:
                assert part in printed, f"{part!r} was not printed by:\n{source}"
    return names
