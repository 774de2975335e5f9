"""Closed loop of lease renewals: streams that each have one renewal under way."""

from __future__ import annotations

import select
from array import array
from time import perf_counter

from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, outcome
from benchmarks.generator.messages import Messages, fields, varint
from benchmarks.generator.requests import framed, request
from kvstore.api.http2 import frames

__all__ = ("run",)

PATH = "/etcdserverpb.Lease/LeaseKeepAlive"
_TTL = 0x18
"""Tag of LeaseKeepAliveResponse.TTL, which is left out when the lease is gone."""


class _Renewals:
    """The streams of one connection."""

    def __init__(self, port: int, leases: list[int]) -> None:
        self.connection = Connection(port, self._on_data)
        self.renewed = 0
        self._messages = Messages()
        self._good: set[bytes] = set()
        self._frames: dict[int, tuple[bytes, int]] = {}
        for lease in leases:
            body = framed(b"\x08" + varint(lease))
            stream = self.connection.open_stream(request(PATH, body, last=False))
            self._frames[stream] = (frames.data_head(len(body), stream) + body, len(body))
        self.connection.flush()

    def _on_data(self, stream: int, payload: bytes) -> None:
        connection = self.connection
        for message in self._messages.feed(stream, payload):
            # Unless something is written meanwhile, a lease's answers are always the same bytes.
            if message not in self._good:
                if any(tag == _TTL and ttl > 0 for tag, ttl in fields(message)):
                    self._good.add(message)
                else:
                    connection.failures["a lease that was kept alive is gone"] += 1
            now = perf_counter()
            connection.latencies.append(now - connection.pending[stream])
            connection.pending[stream] = now
            self.renewed += 1
            connection.say(*self._frames[stream])


def run(job: Job) -> Outcome:
    """Renews `options["leases"]`, one stream each, spread over the connections."""
    leases = job.options["leases"]
    groups = [
        _Renewals(job.ports[number % len(job.ports)], leases[number :: job.connections])
        for number in range(job.connections)
    ]
    poll = select.epoll()
    by_file = {each.connection.fileno(): each.connection for each in groups}
    for file in by_file:
        poll.register(file, select.EPOLLIN)

    def run_until(deadline: float) -> None:
        while (left := deadline - perf_counter()) > 0:
            for file, _ in poll.poll(left):
                by_file[file].receive()

    connections = list(by_file.values())
    clock = CpuWatch(job.pids)
    latencies = array("d")
    count = 0
    try:
        run_until(perf_counter() + job.warmup_s)
        for one in connections:
            del one.latencies[:]
        before = sum(each.renewed for each in groups)
        clock = CpuWatch(job.pids)
        run_until(perf_counter() + job.seconds)
        clock.stop()
        count = sum(each.renewed for each in groups) - before
    except LostError as error:
        clock.stop()
        connections[0].failures[f"connection lost: {error}"] += 1
    finally:
        poll.close()
        for one in connections:
            latencies.extend(one.latencies)
            # Each stream has one renewal under way at any time, at the end too.
            one.pending.clear()
            one.close()
    return outcome(connections, clock, count, latencies)
