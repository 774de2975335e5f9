"""Watchers, and puts that they must all be told of: how many events arrive, and how soon.

Two ways to put. In a closed loop at most `window` puts are ahead of the watchers, so that servers
may gather events but not fall behind; at a `rate` puts go out by the clock, and each event's time
since its put is taken. At the end every watcher must have seen every event of its key, once.
"""

from __future__ import annotations

import re
import select
from array import array
from collections import Counter
from random import Random
from time import perf_counter

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, outcome
from benchmarks.generator.messages import Messages, fields
from benchmarks.generator.requests import Method, Request, framed, key_of, request
from kvstore.api.http2 import frames

__all__ = ("EVENT_BYTES", "event_name", "run")

EVENT_BYTES = 18
_EVENT = re.compile(rb"event/(\d{12})")
_CREATED, _CANCELED, _EVENTS = 0x18, 0x20, 0x5A
"""Tags of WatchResponse."""
_KNOWN = 10_000
SETTLE_S = 20.0


def event_name(number: int) -> bytes:
    """How a put's value begins, so that its event can be told."""
    return b"event/%012d" % number


class _Group:
    """The watchers of one connection."""

    def __init__(self, port: int, timed: list[float] | None) -> None:
        self.connection = Connection(port, self._on_data)
        self.events: Counter[int] = Counter()
        """By stream."""
        self.total = self.created = 0
        self.keys: dict[int, list[int]] = {}
        """What each stream watches: numbers of keys."""
        self._messages = Messages()
        self._known: dict[bytes, int] = {}
        self._sent_at = timed

    def watch(self, method: Method, numbers: list[int], *, shared: bool) -> None:
        """One stream for all, or one for each."""
        connection = self.connection
        bodies = [framed(method.message(number)) for number in numbers]
        for place, (number, body) in enumerate(zip(numbers, bodies, strict=True)):
            if place == 0 or not shared:
                stream = connection.open_stream(request(method.path, body, last=False))
                self.keys[stream] = [number]
            else:
                connection.say(frames.data_head(len(body), stream) + body, len(body))
                self.keys[stream].append(number)
        connection.flush()

    def _on_data(self, stream: int, payload: bytes) -> None:
        for message in self._messages.feed(stream, payload):
            count = self._known.get(message)
            if count is None:
                count = self._read(message)
            if count:
                self.events[stream] += count
                self.total += count

    def _read(self, message: bytes) -> int:
        """How many events; equal messages to many watchers are read once."""
        events = 0
        for tag, _ in fields(message):
            if tag == _EVENTS:
                events += 1
            elif tag == _CREATED:
                self.created += 1
            elif tag == _CANCELED:
                self.connection.failures["a watch was cancelled"] += 1
        if events and self._sent_at is not None:
            now = perf_counter()
            for number in _EVENT.findall(message):
                self.connection.latencies.append(now - self._sent_at[int(number)])
        elif events:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[message] = events
        return events


class _Bench:
    """All watchers of a job, and the connection that puts."""

    def __init__(self, job: Job) -> None:
        options = job.options
        self._put = Method.from_json(job.methods[1])
        self.rate: float = options["rate"]
        self.window: int = options["window"]
        self.per_put: int = options["watchers"] // job.keys
        self.puts: Counter[int] = Counter()
        self._chance = Random(job.seed)
        self._keys = job.keys
        self._sent_at: list[float] = []
        timed = self._sent_at if self.rate else None
        count = job.connections
        self.groups = [_Group(job.ports[n % len(job.ports)], timed) for n in range(count)]
        self.putter = Connection(options["put_port"])
        watch = Method.from_json(job.methods[0])
        for place, group in enumerate(self.groups):
            numbers = [n % job.keys for n in range(place, options["watchers"], count)]
            group.watch(watch, numbers, shared=options["shared"])
        self.connections = [*(group.connection for group in self.groups), self.putter]

    @property
    def events(self) -> int:
        return sum(group.total for group in self.groups)

    def put(self) -> None:
        """One put of a key drawn at random, its number in its value."""
        number = int(self._chance.random() * self._keys)
        first, middle, last = self._put.parts
        body = b"".join((first, key_of(number), middle, event_name(self.putter.sent), last))
        ready: Request = request(self._put.path, framed(body), 1)
        self._sent_at.append(perf_counter())
        if self.putter.submit(1, lambda: ready):
            self.puts[number] += 1
        else:
            # Without room in the connection's window the put is held; it must not be made anew.
            raise LostError("the server's window for puts is used up")

    def pump(self, left: float) -> None:
        """Waits for input, so long at most, and takes it."""
        # Not epoll: its time has steps of a millisecond, as long as between two puts.
        for each in select.select(self.connections, [], [], max(0.0, left))[0]:
            each.receive()

    def run_until(self, deadline: float) -> None:
        due = perf_counter()
        while (now := perf_counter()) < deadline:
            left = deadline - now
            if self.rate:
                while due <= now:
                    self.put()
                    due += 1 / self.rate
                left = min(left, due - perf_counter())
            else:
                while self.putter.sent * self.per_put - self.events < self.window * self.per_put:
                    self.put()
            self.pump(left)

    def wait(self, done: str) -> None:
        """Until all watches stand (`created`), or all events are there (`told`)."""
        deadline = perf_counter() + SETTLE_S
        while (left := deadline - perf_counter()) > 0:
            if done == "created":
                wanted = sum(len(keys) for group in self.groups for keys in group.keys.values())
                if sum(group.created for group in self.groups) >= wanted:
                    return
            elif self.events >= self.putter.sent * self.per_put and not self.putter.pending:
                return
            self.pump(left)

    def check(self) -> None:
        """Counts as a failure each stream that saw another number of events than were made."""
        for group in self.groups:
            for stream, keys in group.keys.items():
                made = sum(self.puts[key] for key in keys)
                if group.events[stream] != made:
                    group.connection.failures["a watcher missed events or saw some twice"] += 1
            group.connection.pending.clear()


def run(job: Job) -> Outcome:
    """Options: `watchers`, `shared` (one stream a connection), `window`, `rate`, `put_port`."""
    bench = _Bench(job)
    latencies = array("d")
    clock = CpuWatch(job.pids)
    count = 0
    try:
        bench.wait("created")
        bench.run_until(perf_counter() + job.warmup_s)
        for each in bench.connections:
            del each.latencies[:]
        before = bench.events
        clock = CpuWatch(job.pids)
        bench.run_until(perf_counter() + job.seconds)
        clock.stop()
        count = bench.events - before
        bench.wait("told")
        bench.check()
    except LostError as error:
        clock.stop()
        bench.putter.failures[f"connection lost: {error}"] += 1
    finally:
        for each in bench.connections:
            each.close()
    for group in bench.groups:
        latencies.extend(group.connection.latencies)
    if not bench.rate:
        latencies = bench.putter.latencies
    return outcome(bench.connections, clock, count, latencies, puts=bench.putter.done)
