"""Whose turn it is to send: every stream has one, none has too much of it."""

from __future__ import annotations

import pytest

from kvstore.api.http2 import limits
from kvstore.api.http2.output import Output
from kvstore.api.http2.sender import Sender, Verdict


class Stream:
    """A stream that answers each turn as it was told, the last answer for ever."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.open = False
        self.delta = 0
        self.turns = 0
        self._verdicts = verdicts

    def drain(self) -> Verdict:
        self.turns += 1
        return self._verdicts[min(self.turns, len(self._verdicts)) - 1]

    def data(self, payload: bytes, size: int, end: bool) -> None: ...

    def ended(self) -> None: ...

    def widen(self, increment: int) -> bool:
        return True

    def lost(self) -> None: ...

    def stop(self) -> None: ...

    def expire(self) -> None: ...


class Counter:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def test_many_streams_take_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TURN_STREAMS", 10)
    announced = Counter()
    output = Output(announced)
    streams = [Stream(Verdict.IDLE) for _ in range(25)]
    for number, stream in enumerate(streams):
        output.want(number, stream)
    announced.count = 0
    for turn, done in ((1, 10), (2, 20), (3, 25)):
        output.pump()
        assert sum(stream.turns for stream in streams) == done
        assert announced.count == min(turn, 2), "what is left is announced"
    output.pump()
    assert all(stream.turns == 1 for stream in streams)


def test_a_stream_with_more_waits_for_the_others() -> None:
    output = Output(Counter())
    greedy, modest = Stream(Verdict.MORE, Verdict.MORE, Verdict.IDLE), Stream(Verdict.IDLE)
    output.want(1, greedy)
    output.want(3, modest)
    output.pump()
    assert (greedy.turns, modest.turns) == (3, 1)


def test_a_starved_stream_is_back_when_there_is_room() -> None:
    announced = Counter()
    output = Output(announced)
    stream = Stream(Verdict.STARVED, Verdict.STARVED, Verdict.IDLE)
    output.want(1, stream)
    output.paused = True
    output.pump()
    output.taken()
    output.pump()
    assert stream.turns == 1
    output.resume()
    output.pump()
    output.send_window = 0
    output.taken()
    output.pump()
    assert stream.turns == 2, "nothing to be had from an empty window"
    output.send_window = 1
    announced.count = 0
    output.taken()
    assert announced.count == 1
    output.pump()
    assert stream.turns == 3


def test_a_message_that_leaves_at_once_is_announced() -> None:
    """Of a stream that was silent: nothing else would have it written."""
    announced = Counter()
    sender = Sender(Output(announced), 1)
    sender.send((b"first",))
    announced.count = 0
    sender.send((b"later",))
    assert announced.count == 1
