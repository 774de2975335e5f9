"""What the tests of the registry's client share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kvstore.client.registry import Instance, convert
from kvstore.pb import registry_pb2 as pb
from tests.support.fake_registry import FakeRegistry

__all__ = ("put", "wait_until")


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Returns when `condition()` holds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def put(fake: FakeRegistry, id: str, status: int = pb.UP, **fields: Any) -> None:
    """An instance of `payment` appears, or changes."""
    made = Instance(service="payment", id=id, address="h", ports={"p": 1}, **fields)
    message = convert.instance_to_pb(made)
    message.status = message.reported = status
    fake.put(message, "registered")
