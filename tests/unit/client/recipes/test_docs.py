"""The examples of docs/recipes.md are true: they run, and print what they say they print."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.examples import run_examples
from tests.support.servers import ROOT
from tests.unit.api.conftest import Local


def test_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Local("http2")
    try:
        run_examples(ROOT / "docs" / "recipes.md", server.target, tmp_path, capsys)
    finally:
        server.close()
