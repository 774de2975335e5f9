"""A stream lets its call go by itself: whatever the collector finalizes may hang a program."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from kvstore.client.streams import Stream, StreamEnded


class FakeCall(grpc.RpcError):
    """As grpcio's: it is the error that it raises at its end."""

    def __init__(self, *messages: str) -> None:
        self.messages = list(messages)
        self.canceled = 0
        self.callbacks: list[Callable[[Any], None]] = []

    def __next__(self) -> str:
        if not self.messages:
            raise self
        return self.messages.pop(0)

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def cancel(self) -> None:
        self.canceled += 1

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_ends_with_the_status() -> None:
    stream = Stream(FakeCall("a", "b"))
    assert [next(stream), next(stream)] == ["a", "b"]
    with pytest.raises(StreamEnded) as raised:
        next(stream)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "gone"
    assert list(stream) == []


def test_the_end_lets_the_call_go_even_while_its_error_is_kept() -> None:
    call = FakeCall("a")
    gone, stream = weakref.ref(call), Stream(call)
    del call
    with pytest.raises(StreamEnded) as raised:
        list(stream)
    assert raised.value.__traceback__ is not None
    assert raised.value.__context__ is None
    assert gone() is None


def test_cancel_lets_the_call_go() -> None:
    call = FakeCall("a")
    gone, stream = weakref.ref(call), Stream(call)
    stream.cancel()
    stream.cancel()
    assert call.canceled == 1
    del call
    assert gone() is None
    assert list(stream) == []


def test_grpcio_refers_to_a_call_under_way() -> None:
    call = FakeCall()
    Stream(call)
    (callback,) = call.callbacks
    callback(call)
