"""Foreign tools: a test without its tool is skipped by name, or fails when all are required."""

from __future__ import annotations

import os
import shutil

import pytest


def require(tool: str) -> str:
    """The path of `tool`; skips the test if it is missing (fails with KVSTORE_REQUIRE_ALL=1)."""
    path = shutil.which(tool)
    if path is None:
        if os.environ.get("KVSTORE_REQUIRE_ALL") == "1":
            pytest.fail(f"{tool} is required (KVSTORE_REQUIRE_ALL=1) and is not installed")
        pytest.skip(f"{tool} is not installed")
    return path
