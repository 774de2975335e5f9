"""Each script in this directory is a claim; its output must be exactly what stands there.

KVSTORE_GOLDEN=rewrite writes what the code does now; a person reads the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.golden.watch.script import run_script

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    output = run_script(text)
    if os.environ.get("KVSTORE_GOLDEN") == "rewrite":
        path.write_text(output, encoding="utf-8")
    else:
        assert output == text


def test_scripts_are_there() -> None:
    assert len(SCRIPTS) >= 25
