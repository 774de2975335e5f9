"""Clients and watchers of a cluster of processes that record what they ask and are answered.

Several clients put, get, delete and compare-and-set over a few keys, one request at a time each,
at any member that answers; what a client that gave up did may happen later, so it goes on under
another number. Watchers follow all keys or one, and resume where they were cut off.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from kvstore import errors
from kvstore.pb import kv_pb2, rpc_pb2
from tests.linear.history import (
    KV,
    TO_THE_END,
    Compare,
    Delete,
    Event,
    Operation,
    Outcome,
    Put,
    Range,
    Request,
    Response,
    Txn,
    WatchRecord,
    WatchResponse,
)
from tests.support.rpc import Rpc

__all__ = ("Load", "replayed")

KEYS = tuple(b"k%d" % number for number in range(8))
PAUSE_S = 0.02
"""Between two requests of a client: a history stays short enough for the search."""
TIMEOUT_S = 1.5


class Load:
    """All traffic of one cluster, over as many rounds as it lives."""

    def __init__(self, endpoints: Sequence[str], *, seed: int, clients: int = 6) -> None:
        self.history: list[Operation] = []
        self.watches: list[WatchRecord] = []
        self.acknowledged = 0
        self._endpoints = list(endpoints)
        self._seed = seed
        self._clients = clients
        self._rounds = 0
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Traffic as long as this lasts; every request has its outcome when it ends."""
        self._stopping.clear()
        self._rounds += 1
        threads = [
            threading.Thread(target=self._client, args=(random.Random(f"{self._seed}/{name}"),))
            for name in (f"{self._rounds}/{number}" for number in range(self._clients))
        ]
        threads += [
            threading.Thread(target=self._watcher, args=(number, *span))
            for number, span in enumerate(((b"\0", TO_THE_END), (KEYS[0], None), (b"k1", b"k5")))
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def wait_acknowledged(self, more: int, timeout_s: float) -> bool:
        """Whether that many more requests succeeded in time."""
        goal, deadline = self.acknowledged + more, time.monotonic() + timeout_s
        while self.acknowledged < goal:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def number(self) -> int:
        """A client that nobody has been yet."""
        with self._lock:
            return next(self._numbers)

    # ---- clients ---------------------------------------------------------------------------

    def _client(self, chance: random.Random) -> None:
        callers = [Rpc(endpoint, timeout_s=TIMEOUT_S) for endpoint in self._endpoints]
        turn = chance.randrange(len(callers))
        client, serial, seen = self.number(), 0, dict.fromkeys(KEYS, 0)
        while not self._stopping.is_set():
            serial += 1
            request = _drawn(chance, b"%d-%d" % (client, serial), seen)
            op = self.ask(callers[turn], client, request)
            for kv in op.response.kvs if op.outcome is Outcome.OK else ():
                seen[kv.key] = kv.mod
            if op.outcome is Outcome.OK:
                self._stopping.wait(PAUSE_S)
                continue
            turn = chance.randrange(len(callers))
            client, serial = self.number(), 0
            self._stopping.wait(5 * PAUSE_S)
        for caller in callers:
            caller.close()

    def ask(self, caller: Rpc, client: int, request: Request) -> Operation:
        """Sends one request and records how it went."""
        method, message = _encoded(request)
        op = Operation(client, time.monotonic_ns(), request)
        try:
            answer = caller.call("KV", method, message)
        except grpc.RpcError as error:
            op.error = error.details() or ""
            known = errors.lookup(error.code().value[0], op.error)
            # The server's own promise that it has had no effect: the checkers hold it to that.
            promised = known is not None and known.outcome_known
            if promised or op.error.startswith("failed to connect"):
                op.outcome, op.ret = Outcome.REFUSED, time.monotonic_ns()
        else:
            op.ret, op.outcome = time.monotonic_ns(), Outcome.OK
            op.response = _decoded(answer)
        with self._lock:
            self.history.append(op)
            self.acknowledged += op.outcome is Outcome.OK
        return op

    # ---- watchers --------------------------------------------------------------------------

    def _watcher(self, number: int, key: bytes, end: bytes | None) -> None:
        start, turn = 0, number
        while not self._stopping.is_set():
            record = WatchRecord(-1 - number, key, end, start, prev_kv=number == 0)
            with self._lock:
                self.watches.append(record)
            turn += 1
            endpoint = self._endpoints[turn % len(self._endpoints)]
            watch(endpoint, record, self._stopping.is_set)
            last = max((each.revision for each in record.responses if each.events), default=0)
            start = last + 1 if last else start
            self._stopping.wait(5 * PAUSE_S)


def watch(endpoint: str, record: WatchRecord, enough: Callable[[], bool]) -> None:
    """Follows one watch on one member until it is cut off, or enough."""
    request = rpc_pb2.WatchCreateRequest(
        key=record.key,
        range_end=record.end or b"",
        start_revision=record.start_revision,
        prev_kv=record.prev_kv,
        progress_notify=True,
    )
    asked = threading.Event()

    def requests() -> Iterator[rpc_pb2.WatchRequest]:
        yield rpc_pb2.WatchRequest(create_request=request)
        asked.wait()

    with Rpc(endpoint) as rpc:
        stream = rpc.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )(requests())
        guard = threading.Thread(target=_cancel_when, args=(enough, stream))
        guard.start()
        try:
            for response in stream:
                record.responses.append(_watch_response(response))
                if response.canceled:
                    break
        except grpc.RpcError:
            pass
        finally:
            asked.set()
            stream.cancel()
            guard.join()


def _cancel_when(enough: Callable[[], bool], stream: Any) -> None:
    while stream.is_active() and not enough():
        time.sleep(0.02)
    stream.cancel()


def replayed(endpoint: str, revision: int) -> list[tuple[int, tuple[Event, ...]]]:
    """The event log of the store up to a revision, as a watch from the beginning replays it."""
    record = WatchRecord(0, b"\0", TO_THE_END, 1)
    deadline = time.monotonic() + 20

    def enough() -> bool:
        seen = max((event.kv.mod for r in record.responses for event in r.events), default=1)
        return seen >= revision or time.monotonic() > deadline

    watch(endpoint, record, enough)
    log: dict[int, list[Event]] = {}
    for response in record.responses:
        for event in response.events:
            log.setdefault(event.kv.mod, []).append(event)
    return [(at, tuple(log[at])) for at in sorted(log)]


# ---- requests and answers -------------------------------------------------------------------


def _drawn(chance: random.Random, value: bytes, seen: dict[bytes, int]) -> Request:
    """The next request; `seen` are the revisions of keys that the client read."""
    key = chance.choice(KEYS)
    draw = chance.random()
    if draw < 0.35:
        return Put(key, value)
    if draw < 0.60:
        return Range(key)
    if draw < 0.68:
        return Range(b"k", b"l")
    if draw < 0.74:
        return Range(key, serializable=True)
    if draw < 0.84:
        return Delete(key) if chance.random() < 0.7 else Delete(key, key + b"0")
    compare = Compare(key, "mod", "=", seen[key])
    return Txn((compare,), (Put(key, value), Range(key)), (Range(key), Delete(KEYS[0])))


def _encoded(request: Request) -> tuple[str, Any]:
    match request:
        case Put(key, value):
            return "Put", rpc_pb2.PutRequest(key=key, value=value)
        case Range(key, end, serializable):
            return "Range", rpc_pb2.RangeRequest(
                key=key, range_end=end or b"", serializable=serializable
            )
        case Delete(key, end):
            return "DeleteRange", rpc_pb2.DeleteRangeRequest(key=key, range_end=end or b"")
        case Txn(compares, success, failure):
            return "Txn", rpc_pb2.TxnRequest(
                compare=[
                    rpc_pb2.Compare(
                        key=each.key,
                        target=rpc_pb2.Compare.MOD,
                        result=rpc_pb2.Compare.EQUAL,
                        mod_revision=each.operand,
                    )
                    for each in compares
                ],
                success=[_operation(each) for each in success],
                failure=[_operation(each) for each in failure],
            )
    raise ValueError(request)


def _operation(request: Request) -> rpc_pb2.RequestOp:
    method, message = _encoded(request)
    names = {"Put": "put", "Range": "range", "DeleteRange": "delete_range"}
    return rpc_pb2.RequestOp(**{f"request_{names[method]}": message})


def _decoded(answer: Any, *, part: bool = False) -> Response:
    revision = 0 if part else answer.header.revision
    match answer:
        case rpc_pb2.RangeResponse():
            kvs = tuple(_kv(kv) for kv in answer.kvs)
            return Response(revision, kvs, count=answer.count)
        case rpc_pb2.DeleteRangeResponse():
            return Response(revision, deleted=answer.deleted)
        case rpc_pb2.TxnResponse():
            parts = tuple(
                _decoded(getattr(each, each.WhichOneof("response")), part=True)
                for each in answer.responses
            )
            return Response(revision, succeeded=answer.succeeded, parts=parts)
    return Response(revision)


def _kv(kv: kv_pb2.KeyValue) -> KV:
    return KV(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _watch_response(response: Any) -> WatchResponse:
    return WatchResponse(
        at=time.monotonic_ns(),
        revision=response.header.revision,
        events=tuple(
            Event(
                "delete" if event.type == kv_pb2.Event.DELETE else "put",
                _kv(event.kv),
                _kv(event.prev_kv) if event.HasField("prev_kv") else None,
            )
            for event in response.events
        ),
        progress=not (response.events or response.created or response.canceled),
        fragment=response.fragment,
        canceled=response.canceled,
        compact_revision=response.compact_revision,
        created=response.created,
    )
