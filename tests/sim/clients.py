"""The clients of a seed: sessions that read and write, lease holders, one that compacts.

Each is a script: a generator that yields what it waits for (`Sleep`, `Ask`) and is sent the
outcome. A client has one request under way at a time. Every value it writes names it and the
write, so that no two writes are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from kvstore.errors import LEASE_NOT_FOUND, EtcdError
from kvstore.pb import rpc_pb2
from tests.linear.history import (
    Compact,
    Compare,
    Delete,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Range,
    Request,
    Response,
    Txn,
)
from tests.sim.cluster import Cluster
from tests.sim.frontdoor import Answer, FrontDoor, Stream, Told
from tests.sim.prng import Prng
from tests.sim.process import Process
from tests.sim.requests import decode, encode
from tests.sim.world import MS, SECOND, World

__all__ = ("Ask", "Clients", "Recorder", "Script", "Sleep", "run_script")

_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
_FIRST_LEASE: Final = 1_000_000
"""Lease ids that clients choose; far from what the server gives out."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Waits."""

    ns: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Calls a member and waits for the Answer."""

    process: Process
    path: str
    payload: bytes
    timeout_ns: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Waits until `begin(resume)` calls `resume(value)`."""

    begin: Callable[[Callable[[Any], None]], None]


Script = Generator[Sleep | Ask | Wait, Any, None]


def run_script(world: World, door: FrontDoor, script: Script) -> None:
    """Begins a script now."""

    def step(value: Any = None) -> None:
        try:
            wanted = script.send(value)
        except StopIteration:
            return
        if isinstance(wanted, Sleep):
            world.after(wanted.ns, step)
        elif isinstance(wanted, Ask):
            door.call(wanted.process, wanted.path, wanted.payload, wanted.timeout_ns, step)
        else:
            wanted.begin(step)

    world.after(0, step)


class Recorder:
    """Every client's history, as they saw it."""

    def __init__(self, world: World) -> None:
        self.operations: list[Operation] = []
        self.succeeded = 0
        self._world = world

    def invoke(self, client: int, request: Request) -> Operation:
        """A client is about to send a request."""
        operation = Operation(client, self._world.now_ns, request)
        self.operations.append(operation)
        self._world.log(f"c{client} {request}")
        self._world.show("invoked", operation)
        return operation

    def complete(self, operation: Operation, answer: Answer) -> None:
        """A client has its answer, or has given up."""
        world = self._world
        if answer.told is Told.OK:
            operation.ret = world.now_ns
            operation.outcome = Outcome.OK
            operation.response = decode(operation.request, answer.body)
            self.succeeded += 1
        else:
            operation.error = answer.text
            if answer.effectless:
                operation.ret = world.now_ns
                operation.outcome = Outcome.REFUSED
        world.log(
            f"c{operation.client} {operation.outcome.value} {operation.response or operation.error}"
        )
        world.show("completed", operation)


class Clients:
    """All of them; `stop` ends them after what they are doing."""

    def __init__(self, cluster: Cluster, door: FrontDoor, recorder: Recorder) -> None:
        self.cluster = cluster
        self.door = door
        self.recorder = recorder
        self.stopped = False
        self.revision = 0
        """The newest that any of them has seen."""
        self.compacted = 0
        self._params = cluster.params
        self._leases = _FIRST_LEASE
        self._serials = 0
        self._known: dict[int, int] = {}
        """Leases that may be alive, by whom."""

    def start(self) -> None:
        """Begins all of them."""
        params, world = self._params, self.cluster.world
        chance = world.prng.fork("client kinds")
        scripts: list[Script] = [
            self._session(number, chance.fork(f"session {number}"))
            for number in range(params.clients)
        ]
        scripts += [
            self._holder(100 + number, chance.fork(f"holder {number}"))
            for number in range(params.lease_clients)
        ]
        if params.compactor:
            scripts.append(self._compactor(200, chance.fork("compactor")))
        for script in scripts:
            run_script(world, self.door, script)

    def stop(self) -> None:
        """No new requests."""
        self.stopped = True

    # ---- one request -----------------------------------------------------------------------

    def some_process(self, chance: Prng) -> Process:
        """Any machine, also one that is down; members more often than others."""
        processes = list(self.cluster.processes.values())
        serving = [p for p in processes if p.serving]
        return chance.pick(serving if serving and chance.chance(19, 20) else processes)

    def request(
        self, client: int, process: Process, request: Request
    ) -> Generator[Any, Any, Operation]:
        """Sends one request and records what becomes of it."""
        operation = self.recorder.invoke(client, request)
        path, payload = encode(request)
        answer = yield Ask(process, path, payload, self._params.client_timeout_ns)
        self.recorder.complete(operation, answer)
        if operation.response is not None:
            self.revision = max(self.revision, operation.response.revision)
        return operation

    # ---- readers and writers ---------------------------------------------------------------

    def _session(self, client: int, chance: Prng) -> Script:
        params = self._params
        process = self.some_process(chance)
        seen: dict[bytes, tuple[int, bytes]] = {}
        yield Sleep(chance.below(2 * SECOND))
        while not self.stopped:
            quiet = chance.chance(params.quiet_percent, 100)
            yield Sleep(
                chance.below(2 * (params.quiet_think_ns if quiet else params.busy_think_ns))
            )
            if chance.chance(1, 8) or not process.serving:
                process = self.some_process(chance)
            operation = yield from self.request(client, process, self._draw(client, chance, seen))
            _remember(operation.response, seen)

    def _key(self, chance: Prng) -> bytes:
        return b"k%d" % chance.below(self._params.keys)

    def _value(self, client: int) -> bytes:
        self._serials += 1
        value = b"%d.%d" % (client, self._serials)
        return value.ljust(self._params.value_bytes, b".")

    def _span(self, chance: Prng) -> tuple[bytes, bytes]:
        """A range of keys."""
        if chance.chance(1, 3):
            return b"k", b"l"
        first = chance.below(self._params.keys)
        return b"k%d" % first, b"k%d" % (first + 1 + chance.below(3))

    def _draw(self, client: int, chance: Prng, seen: dict[bytes, tuple[int, bytes]]) -> Request:
        """The next request of a session."""
        kind = chance.weighted(
            [
                (28, "put"),
                (20, "get"),
                (8, "range"),
                (6, "delete"),
                (2, "delete range"),
                (14, "compare and set"),
                (8, "txn"),
                (4, "read txn"),
                (5, "serializable"),
                (3, "past"),
                (2, "count"),
            ]
        )
        key = self._key(chance)
        if kind == "put":
            return self._put(client, key, chance)
        if kind == "get":
            return Range(key)
        if kind == "delete":
            return Delete(key)
        if kind == "compare and set":
            known = seen.get(key, (0, b""))
            compare = Compare(key, "mod", "=", known[0])
            if known[0] and chance.chance(1, 3):
                compare = Compare(key, "value", "=", known[1])
            return Txn((compare,), (self._put(client, key, chance),), (Range(key),))
        if kind == "txn":
            return self._txn(client, chance)
        if kind == "read txn":
            return Txn((), (Range(key), Range(*self._span(chance))), ())
        if kind == "serializable":
            return Range(key, serializable=True)
        start, end = self._span(chance)
        if start >= end:
            start, end = b"k", b"l"
        if kind == "delete range":
            return Delete(start, end)
        if kind == "past":
            return Range(start, end, revision=max(1, self.revision - chance.below(20)))
        if kind == "count":
            return Range(start, end, count_only=True)
        return Range(start, end, limit=chance.pick((0, 0, 1, 2)))

    def _put(self, client: int, key: bytes, chance: Prng) -> Put:
        lease = 0
        if self._known and chance.chance(1, 6):
            lease = chance.pick(list(self._known))
        return Put(key, self._value(client), lease)

    def _txn(self, client: int, chance: Prng) -> Txn:
        """Several writes at once, perhaps one inside another."""
        first, second = self._two_keys(chance)
        compares = (Compare(first, "create", chance.pick((">", "=")), 0),)
        writes: tuple[Any, ...] = (
            self._put(client, first, chance),
            self._put(client, second, chance),
        )
        if chance.chance(1, 3):
            writes = (Range(second), self._put(client, first, chance), Delete(second))
        if chance.chance(1, 4):
            inner = Txn((Compare(second, "version", ">", 0),), writes, (Range(first),))
            writes = (inner, Range(first))
        return Txn(compares, writes, (Range(first), Delete(second)))

    def _two_keys(self, chance: Prng) -> tuple[bytes, bytes]:
        first = chance.below(self._params.keys)
        second = (first + 1 + chance.below(self._params.keys - 1)) % self._params.keys
        return b"k%d" % first, b"k%d" % second

    # ---- leases ----------------------------------------------------------------------------

    def _holder(self, client: int, chance: Prng) -> Script:
        """Takes a lease, ties keys to it, keeps it a while, and lets go in one of three ways."""
        yield Sleep(chance.below(2 * SECOND))
        shortest_s = -(-15 * self._params.heartbeat_ms // 1000)
        while not self.stopped:
            yield Sleep(chance.below(4 * SECOND))
            self._leases += 1
            lease_id, ttl_s = self._leases, shortest_s + chance.below(4)
            process = self.some_process(chance)
            granted = yield from self.request(client, process, LeaseGrant(lease_id, ttl_s))
            if granted.outcome is Outcome.REFUSED:
                continue
            self._known[lease_id] = client
            if granted.outcome is Outcome.OK:
                self.cluster.world.show("lease_event", "granted", lease_id, float(ttl_s), process)
            for _ in range(chance.between(1, 3)):
                put = Put(b"k%d" % chance.below(self._params.keys), self._value(client), lease_id)
                yield from self.request(client, self.some_process(chance), put)
            for _ in range(chance.below(5)):
                yield Sleep(ttl_s * SECOND * chance.between(20, 70) // 100)
                process = self.some_process(chance)
                renewed = yield Wait(
                    lambda resume, at=process, id_=lease_id: self.renew(at, id_, resume)
                )
                if renewed:
                    self.cluster.world.show(
                        "lease_event", "renewed", lease_id, float(renewed), process
                    )
                elif renewed == 0:
                    break
            if chance.chance(1, 2):
                process = self.some_process(chance)
                revoked = yield from self.request(client, process, LeaseRevoke(lease_id))
                if revoked.outcome is Outcome.OK:
                    self.cluster.world.show("lease_event", "revoked", lease_id, 0.0, process)
            self._known.pop(lease_id, None)

    def renew(self, process: Process, lease_id: int, resume: Callable[[Any], None]) -> None:
        """One keep-alive; resumes with the TTL, 0 when there is no such lease, None unknown."""
        world = self.cluster.world
        over = False

        def end(ttl_s: int | None) -> None:
            nonlocal over
            if not over:
                over = True
                stream.close()
                world.log(f"keep-alive {lease_id} {ttl_s}")
                resume(ttl_s)

        def received(message: bytes) -> None:
            end(rpc_pb2.LeaseKeepAliveResponse.FromString(message).TTL)

        def ended(error: EtcdError | None) -> None:
            end(0 if error == LEASE_NOT_FOUND else None)

        stream = Stream(self.door, process, _KEEP_ALIVE, received, ended)
        stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString())
        world.after(self._params.client_timeout_ns, end, None)

    # ---- compaction ------------------------------------------------------------------------

    def _compactor(self, client: int, chance: Prng) -> Script:
        """Forgets the past now and then, sometimes all of it."""
        while not self.stopped:
            yield Sleep(chance.between(1_000, 15_000) * MS)
            target = self.revision - chance.pick((0, 1, 10, 50))
            if target <= self.compacted or self.stopped:
                continue
            process = self.some_process(chance)
            done = yield from self.request(client, process, Compact(target))
            if done.outcome is Outcome.OK:
                self.compacted = max(self.compacted, target)


def _remember(response: Response | None, seen: dict[bytes, tuple[int, bytes]]) -> None:
    """What a session has read last of each key, for its next compare."""
    if response is None:
        return
    for kv in response.kvs:
        seen[kv.key] = (kv.mod, kv.value)
    for part in response.parts:
        _remember(part, seen)
