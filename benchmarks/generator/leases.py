"""Many leases kept alive as their owners would: each renewed thrice in its TTL, none to be lost."""

from __future__ import annotations

import select
from array import array
from collections.abc import Iterator
from time import perf_counter

from benchmarks.generator.caller import Caller, CallError
from benchmarks.generator.clocks import CpuWatch
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job, Outcome, outcome
from benchmarks.generator.keepalive import PATH
from benchmarks.generator.messages import Messages, fields, varint
from benchmarks.generator.requests import Request, framed, request
from benchmarks.generator.unary import Loop
from kvstore.api.http2 import frames
from kvstore.pb import rpc_pb2

__all__ = ("Keeper", "run")

SERVICE = "/etcdserverpb.Lease/"
FIRST_ID = 1_000_000_000
STREAMS_EACH = 10
"""Clients on one connection; the leases are shared out among all of them."""
RENEWALS_IN_TTL = 3
ALL_AT_ONCE_S = 120.0
"""How long granting or revoking all of them may take."""
SETTLE_S = 20.0
_ID, _TTL = 0x10, 0x18
"""Tags of LeaseKeepAliveResponse; TTL is left out when the lease is gone."""


class Keeper:
    """The streams of one connection, each of which renews leases of its own."""

    def __init__(self, port: int) -> None:
        self.connection = Connection(port, self._on_data)
        self.gone: set[int] = set()
        self.renewed = 0
        self.waiting: dict[int, float] = {}
        """When each renewal that is not answered was sent, by lease."""
        self._messages = Messages()
        self._streams: dict[int, int] = {}

    def renew(self, lease: int, owner: int) -> None:
        """On the stream of its owner, which is opened by the first of its renewals."""
        body = framed(b"\x08" + varint(lease))
        connection = self.connection
        stream = self._streams.get(owner)
        if stream is None:
            opened = connection.open_stream(request(PATH, body, last=False))
            self._streams[owner] = opened
        else:
            connection.say(frames.data_head(len(body), stream) + body, len(body))
        self.waiting[lease] = perf_counter()
        connection.flush()

    def _on_data(self, stream: int, payload: bytes) -> None:
        for message in self._messages.feed(stream, payload):
            self.answered(message)

    def answered(self, message: bytes) -> None:
        """One renewal's answer."""
        found = dict(fields(message))
        lease = found.get(_ID, 0)
        sent = self.waiting.pop(lease, None)
        if sent is None:
            self.connection.failures["an answer for a lease that was not renewed"] += 1
            return
        self.connection.latencies.append(perf_counter() - sent)
        self.renewed += 1
        if not found.get(_TTL):
            self.gone.add(lease)


def _for_each(job: Job, method: str, messages: Iterator[bytes]) -> list[Connection]:
    """A unary call for each message; the connections, with what failed."""
    requests: Iterator[Request] = (request(SERVICE + method, framed(each)) for each in messages)
    loop = Loop(job, lambda: next(requests, None))
    try:
        loop.run_until(perf_counter() + ALL_AT_ONCE_S)
    finally:
        loop.close()
    return loop.connections


def _keep(job: Job, keepers: list[Keeper], leases: range) -> None:
    """Renews by the clock, round and round, for the time of the job; then awaits the answers."""
    pause = job.options["ttl_s"] / RENEWALS_IN_TTL / len(leases)
    now = due = perf_counter()
    deadline = now + job.seconds
    number = 0
    connections = {each.connection: each for each in keepers}
    while (now := perf_counter()) < deadline + SETTLE_S:
        if now < deadline:
            while due <= now:
                lease = leases[number % len(leases)]
                keeper, place = lease % len(keepers), lease // len(keepers)
                keepers[keeper].renew(lease, place % STREAMS_EACH)
                number += 1
                due += pause
        elif not any(each.waiting for each in keepers):
            return
        blocked = [each for each in connections if each.blocked]
        left = max(0.0, due - now) if now < deadline else 0.1
        ready, writable, _ = select.select(list(connections), blocked, [], min(0.1, left))
        for each in writable:
            each.flush()
        for each in ready:
            each.receive()


def _alive(port: int) -> set[int]:
    """Ids of the leases that the server has."""
    with Caller(port) as call:
        answer = rpc_pb2.LeaseLeasesResponse.FromString(call(SERVICE + "LeaseLeases", b"", 60))
    return {each.ID for each in answer.leases}


def run(job: Job) -> Outcome:
    """Options: `ttl_s`. `job.keys` leases are granted, kept for `job.seconds`, and revoked.

    `extra["lost"]` counts those that a renewal found gone or that the server does not list at the
    end; `granted_per_s` tells how they came.
    """
    leases = range(FIRST_ID, FIRST_ID + job.keys)
    ttl_s = job.options["ttl_s"]
    began = perf_counter()
    others = _for_each(
        job,
        "LeaseGrant",
        (rpc_pb2.LeaseGrantRequest(ID=each, TTL=ttl_s).SerializeToString() for each in leases),
    )
    granted_per_s = job.keys / (perf_counter() - began)
    keepers = [Keeper(job.ports[n % len(job.ports)]) for n in range(job.connections)]
    connections = [each.connection for each in keepers]
    clock = CpuWatch(job.pids)
    alive: set[int] = set()
    try:
        _keep(job, keepers, leases)
        clock.stop()
        alive = _alive(job.ports[0])
    except (LostError, CallError) as error:
        clock.stop()
        connections[0].failures[f"connection lost: {error}"] += 1
    finally:
        for each in keepers:
            # What is pending in the connection are its streams, which stay open.
            each.connection.pending.clear()
            if each.waiting:
                each.connection.failures["no answer to a renewal"] += len(each.waiting)
            each.connection.close()
    gone = {lease for each in keepers for lease in each.gone}
    lost = len(gone | (set(leases) - alive))
    others += _for_each(
        job,
        "LeaseRevoke",
        (rpc_pb2.LeaseRevokeRequest(ID=each).SerializeToString() for each in sorted(alive)),
    )
    latencies = array("d")
    for one in connections:
        latencies.extend(one.latencies)
    renewed = sum(each.renewed for each in keepers)
    return outcome(
        connections + others, clock, renewed, latencies, lost=lost, granted_per_s=granted_per_s
    )
