"""Waiting in tests for what happens elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.client import LeaseNotFoundError

__all__ = ("notice_loss", "wait_until")


def wait_until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Poll until `condition()` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def notice_loss(held: Any) -> None:
    """Renew the lease of `held`, which was revoked: the client learns it now, not in seconds."""
    with pytest.raises(LeaseNotFoundError):
        held.lease.refresh()
