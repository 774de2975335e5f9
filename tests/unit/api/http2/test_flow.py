"""Windows, messages and deadlines by themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.http2.deadlines import Deadlines
from kvstore.api.http2.flow import ReceiveWindow
from kvstore.api.http2.messages import MessageReader
from kvstore.errors import Code, EtcdError
from tests.unit.api.http2.raw import message


def test_a_window_is_given_back_in_large_steps() -> None:
    window = ReceiveWindow(100)
    announced = 0
    for _ in range(20):
        assert window.take(10)
        announced += (increment := window.give_back(10))
        assert increment in (0, 50)
    assert announced == 200
    assert window.left == 100


def test_a_window_that_is_not_given_back_ends() -> None:
    window = ReceiveWindow(100)
    assert window.take(100)
    assert window.take(0)
    assert not window.take(1)


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 200), max_size=10))
def test_messages_survive_any_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(message, payloads))
    reader = MessageReader(30)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    got = []
    for start, end in pairwise(edges):
        reader.feed(stream[start:end])
        while (one := reader.next()) is not None:
            got.append(one)
    assert got == payloads
    assert len(reader) == 0


def test_a_message_is_refused_by_its_prefix_alone() -> None:
    reader = MessageReader(10)
    reader.feed(message(bytes(11))[:5])
    with pytest.raises(EtcdError, match=r"received message larger than max \(11 vs. 10\)") as got:
        reader.next()
    assert got.value.code == Code.RESOURCE_EXHAUSTED
    exact = MessageReader(10)
    exact.feed(message(bytes(10)))
    assert exact.next() == bytes(10)


@pytest.mark.parametrize("flag", [1, 2, 255])
def test_a_compressed_message_is_refused(flag: int) -> None:
    reader = MessageReader(10)
    reader.feed(message(b"x", compressed=flag))
    with pytest.raises(EtcdError) as got:
        reader.next()
    assert got.value.code == Code.INTERNAL


class Call:
    def __init__(self) -> None:
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


class Timer:
    """A clock and its single timer, turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def schedule(self, delay: float, function: Callable[[], None]) -> None:
        self.due.append((self.now + delay, function))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.due and self.due[0][0] <= end:
            self.now, function = self.due.pop(0)
            function()
        self.now = end


def test_deadlines_pass_a_step_late_at_most_and_never_early() -> None:
    timer = Timer()
    deadlines = Deadlines(lambda: timer.now, timer.schedule, step_s=0.1)
    calls = {seconds: Call() for seconds in (0.0, 0.05, 0.1, 0.25, 1.0, 3600.0)}
    for seconds, call in calls.items():
        deadlines.add(call, seconds)
    left = Call()
    deadlines.remove(left, deadlines.add(left, 0.2))
    assert len(timer.due) == 1
    for _ in range(200):
        timer.run(0.01)
        for seconds, call in calls.items():
            if timer.now < 1000 + seconds:
                assert not call.expired
            if timer.now > 1000 + seconds + 0.21:
                assert call.expired == 1
    assert not left.expired
    assert calls[3600.0].expired == 0


def test_the_timer_rests_when_no_call_is_waiting() -> None:
    timer = Timer()
    deadlines = Deadlines(lambda: timer.now, timer.schedule, step_s=0.1)
    call = Call()
    bucket = deadlines.add(call, 100.0)
    deadlines.remove(call, bucket)
    timer.run(1.0)
    assert not timer.due
    deadlines.add(call, 0.1)
    timer.run(1.0)
    assert call.expired == 1
    assert not timer.due
