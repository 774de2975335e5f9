"""One client under one load, in a process of its own: reads a task from stdin, prints what came.

    python -m benchmarks.clients.worker

Nothing of the server is imported, so that any Python that has the client's package can run it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass

from benchmarks.clients.faces import FACES, AsyncFace, Face

__all__ = ("EVENTS_EACH", "LOADS", "Came", "Checked", "Task", "key_of", "value_of")

LOADS = ("put", "get", "put-pipelined", "get-pipelined", "watch")
EVENTS_EACH = 10
"""Puts of one transaction while a watch is measured, and so events of one revision."""
PREFIX = b"bench/"


def key_of(number: int) -> bytes:
    return b"%s%012d" % (PREFIX, number)


def value_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@dataclass(frozen=True, slots=True)
class Task:
    """What a client is to do."""

    client: str
    load: str
    port: int
    inflight: int
    seconds: float
    warmup_s: float
    keys: int
    value_bytes: int

    @property
    def pipelined(self) -> int:
        """Calls under way at once."""
        return self.inflight if self.load.endswith("-pipelined") else 1


@dataclass(frozen=True, slots=True)
class Came:
    """What was done in the measured time, and all the puts of the run."""

    count: int
    seconds: float
    cpu_s: float
    writes: int
    void: tuple[str, ...] = ()


class Checked:
    """Counts events, and notices one that is missing or comes twice."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong = 0
        self._revision = 0
        self._left = 0

    def take(self, revisions: list[int]) -> None:
        """`EVENTS_EACH` events of each revision, and no revision left out."""
        self.count += len(revisions)
        for revision in revisions:
            if self._left == 0:
                self.wrong += self._revision not in (0, revision - 1)
                self._revision, self._left = revision, EVENTS_EACH
            self.wrong += revision != self._revision
            self._left -= 1

    def void(self) -> tuple[str, ...]:
        return (f"{self.wrong} events were missing or out of order",) if self.wrong else ()


class _Span:
    """The measured time: wall clock and this process's CPU."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def end(self, count: int, writes: int = 0, void: tuple[str, ...] = ()) -> Came:
        took, used = time.perf_counter() - self._began, time.process_time() - self._cpu
        return Came(count, took, used, writes, void)


def _wrong(value: bytes, size: int) -> None:
    if len(value) != size:
        raise ValueError(f"a value of {len(value)} bytes where {size} were put")


def blocking_calls(task: Task, face: Face) -> Came:
    """One thread for each call that may be under way."""
    value, size = value_of(task.value_bytes), task.value_bytes
    put = task.load.startswith("put")
    done = [0] * task.pipelined
    failed: list[BaseException] = []
    over = threading.Event()

    def work(place: int) -> None:
        chance = random.Random(place)
        try:
            while not over.is_set():
                key = key_of(chance.randrange(task.keys))
                if put:
                    face.put(key, value)
                else:
                    _wrong(face.get(key), size)
                done[place] += 1
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(done))]
    for thread in threads:
        thread.start()
    time.sleep(task.warmup_s)
    before, span = sum(done), _Span()
    time.sleep(task.seconds)
    came = span.end(sum(done) - before)
    over.set()
    for thread in threads:
        thread.join()
    return _settled(came, sum(done) if put else 0, failed)


async def awaited_calls(task: Task, face: AsyncFace) -> Came:
    """One coroutine for each call that may be under way, gathered."""
    value, size = value_of(task.value_bytes), task.value_bytes
    put = task.load.startswith("put")
    done = 0
    failed: list[BaseException] = []
    over = False

    async def work(place: int) -> None:
        nonlocal done
        chance = random.Random(place)
        try:
            while not over:
                key = key_of(chance.randrange(task.keys))
                if put:
                    await face.put(key, value)
                else:
                    _wrong(await face.get(key), size)
                done += 1
        except Exception as error:
            failed.append(error)

    async def clock() -> Came:
        nonlocal over
        await asyncio.sleep(task.warmup_s)
        before, span = done, _Span()
        await asyncio.sleep(task.seconds)
        came = span.end(done - before)
        over = True
        return came

    calls = asyncio.gather(*(work(place) for place in range(task.pipelined)))
    came = await clock()
    await calls
    return _settled(came, done if put else 0, failed)


def _settled(came: Came, writes: int, failed: list[BaseException]) -> Came:
    void = tuple(f"a call failed: {error!r}" for error in failed)
    return Came(came.count, came.seconds, came.cpu_s, writes, void)


def blocking_watch(task: Task, face: Face) -> Came:
    """Events of one watch, counted from the warm-up's end on."""
    events = face.watch(PREFIX)
    print("ready", flush=True)
    return _counted(task, events)


def _counted(task: Task, events: Iterator[list[int]]) -> Came:
    checked, watch = Checked(), _Watching(task)
    for revisions in events:
        checked.take(revisions)
        if watch.over(checked.count):
            break
    return watch.came(checked)


async def awaited_watch(task: Task, face: AsyncFace) -> Came:
    events: AsyncIterator[list[int]] = await face.watch(PREFIX)
    print("ready", flush=True)
    checked, watch = Checked(), _Watching(task)
    async for revisions in events:
        checked.take(revisions)
        if watch.over(checked.count):
            break
    return watch.came(checked)


class _Watching:
    """Warm-up and measured time of a watch, told by the events that come."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._began = 0.0
        self._before = 0
        self._span: _Span | None = None
        self._came: Came | None = None

    def over(self, count: int) -> bool:
        """Whether the measured time has passed; asked after each arrival."""
        now = time.perf_counter()
        self._began = self._began or now
        left = now - self._began - self._task.warmup_s
        if left >= 0 and self._span is None:
            self._span, self._before = _Span(), count
        if left < self._task.seconds or self._span is None:
            return False
        self._came = self._span.end(count - self._before)
        return True

    def came(self, checked: Checked) -> Came:
        found = self._came or Came(0, self._task.seconds, 0.0, 0)
        void = checked.void() + (() if self._came else ("the watch ended by itself",))
        return Came(found.count, found.seconds, found.cpu_s, 0, void)


async def _awaited(task: Task, make: Callable[[str, int], AsyncFace]) -> Came:
    face = make("127.0.0.1", task.port)
    run: Callable[[Task, AsyncFace], Awaitable[Came]]
    run = awaited_watch if task.load == "watch" else awaited_calls
    came = await run(task, face)
    await face.close()
    return came


def main() -> None:
    task = Task(**json.loads(sys.stdin.readline()))
    kind = FACES[task.client]
    if issubclass(kind, AsyncFace):
        came = asyncio.run(_awaited(task, kind))
    else:
        face = kind("127.0.0.1", task.port)
        came = (blocking_watch if task.load == "watch" else blocking_calls)(task, face)
        face.close()
    print(json.dumps(asdict(came)), flush=True)
    # Not through the interpreter's end: there grpcio, collected with a stream that was given up,
    # now and then waits for a lock whose holder is gone (seen once in fifty watches).
    os._exit(0)


if __name__ == "__main__":
    main()
