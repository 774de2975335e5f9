"""Clients beside each other: what is counted, what voids a run, what is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks.clients.__main__ import MATCHES, PURE, Beside, line, reasons_void, variables
from benchmarks.clients.faces import FACES, AsyncFace, Face
from benchmarks.clients.worker import (
    EVENTS_EACH,
    Came,
    Checked,
    Task,
    awaited_calls,
    blocking_calls,
    value_of,
)

SIZE = 10


def task(load: str = "put", inflight: int = 8) -> Task:
    return Task("Client", load, 1, inflight, 0.1, 0.02, 100, SIZE)


class Dictionary(Face):
    """A client of nothing that remembers how many threads were in it at once."""

    def __init__(self) -> None:
        self.puts = self.inside = self.most = 0

    def put(self, key: bytes, value: bytes) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.005)
        self.inside -= 1
        self.puts += 1

    def get(self, key: bytes) -> bytes:
        time.sleep(0.001)
        return value_of(SIZE - 1)


class AsyncDictionary(AsyncFace):
    def __init__(self) -> None:
        self.puts = self.inside = self.most = 0

    async def put(self, key: bytes, value: bytes) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.005)
        self.inside -= 1
        self.puts += 1

    async def get(self, key: bytes) -> bytes:
        await asyncio.sleep(0.001)
        return value_of(SIZE - 1)


@pytest.mark.parametrize(("load", "width"), [("put", 1), ("put-pipelined", 8)])
def test_as_many_calls_are_under_way_as_asked_and_all_are_counted(load: str, width: int) -> None:
    blocking, awaited = Dictionary(), AsyncDictionary()
    runs: list[tuple[Came, Dictionary | AsyncDictionary]] = [
        (blocking_calls(task(load), blocking), blocking),
        (asyncio.run(awaited_calls(task(load), awaited)), awaited),
    ]
    for came, face in runs:
        assert face.most == width
        assert came.writes == face.puts > came.count > 0
        assert came.void == ()


def test_a_wrong_answer_voids() -> None:
    blocking = blocking_calls(task("get"), Dictionary())
    awaited = asyncio.run(awaited_calls(task("get"), AsyncDictionary()))
    for came in (blocking, awaited):
        (why,) = came.void
        assert "a value of 9 bytes where 10 were put" in why


def test_each_event_must_come_once_and_in_order() -> None:
    whole = [revision for revision in (5, 6, 7) for _ in range(EVENTS_EACH)]
    good = Checked()
    for at in range(0, len(whole), 7):
        good.take(whole[at : at + 7])
    assert (good.count, good.void()) == (len(whole), ())
    for wrong in (whole[:3] + whole[4:], whole[:3] + whole[2:], whole[:10] + whole[20:]):
        found = Checked()
        found.take(wrong)
        assert found.void()


def test_what_voids_a_run() -> None:
    good = Came(10, 0.1, 0.01, writes=12)
    assert reasons_void(task(), good, 12, None) == []
    (why,) = reasons_void(task(), good, 11, None)
    assert why == "Client: the revision advanced by 11, the writes were 12"
    nothing = reasons_void(task(), Came(0, 0.1, 0.0, 0, ("a call failed",)), 0, None)
    assert nothing == [
        "Client: a call failed",
        "Client: nothing was finished in the measured time",
    ]


def test_a_line_tells_rates_ratio_and_cpu() -> None:
    def run(per_s: float, cpu: float) -> dict[str, float]:
        return {"per_s": per_s, "cpu_s_per_1000": cpu}

    pairs = [{"Client": run(3000 * n, 0.2), "etcd3": run(2000 * n, 0.4)} for n in (1, 2, 3)]
    one = Beside("put", "Client", "etcd3", pairs, ["etcd3 failed: no word"])
    text = line(one)
    assert "put: Client, etcd3" in text
    assert "6,000" in text
    assert "1.50 (1.50 to 1.50)" in text
    assert "0.2 / 0.4" in text
    assert text.endswith("void: etcd3 failed: no word")
    assert line(Beside("put", "Client", "etcd3")).endswith("void")


def test_only_what_needs_it_runs_on_protobuf_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PURE, raising=False)
    assert [each for each in FACES if PURE in variables(each, same_protobuf=False)] == ["etcd3"]
    assert variables("etcd3", same_protobuf=False)[PURE] == "python"
    assert variables("Client", same_protobuf=True)[PURE] == "python"
    assert {*MATCHES, *MATCHES.values()} == {*FACES}
