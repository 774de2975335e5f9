"""A client of any etcd v3 server: typed calls over a plain channel, by the method's name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from kvstore.pb import kv_pb2, rpc_pb2, v3election_pb2, v3lock_pb2

RANGE_ALL = {"key": b"\0", "range_end": b"\0"}


class Bidi:
    """A bidirectional stream: `send`, `receive` with a timeout, `finish`, `cancel`."""

    def __init__(self, call: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self._responses: queue.Queue[Any] = queue.Queue()
        self.call = call(iter(self._requests.get, None))
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        try:
            for response in self.call:
                self._responses.put(response)
            self._responses.put(None)
        except grpc.RpcError as error:
            self._responses.put(error)

    def send(self, message: Any) -> None:
        self._requests.put(message)

    def finish(self) -> None:
        """Half-closes."""
        self._requests.put(None)

    def cancel(self) -> None:
        self.call.cancel()

    def receive(self, timeout: float = 5.0) -> Any:
        """The next response; None at the end of the stream; raises its RpcError."""
        response = self._responses.get(timeout=timeout)
        if isinstance(response, grpc.RpcError):
            raise response
        return response

    def silent(self, seconds: float = 0.15) -> bool:
        """Whether nothing arrives for a while."""
        try:
            response = self._responses.get(timeout=seconds)
        except queue.Empty:
            return True
        raise AssertionError(f"unexpected {response!r}")


class Client:
    """All calls that the tests make."""

    def __init__(self, channel: grpc.Channel, metadata: Any = ()) -> None:
        self.channel = channel
        self.metadata = metadata

    def unary(self, path: str, request: Any, response: Any, timeout: float = 10.0) -> Any:
        method = self.channel.unary_unary(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return method(request, timeout=timeout, metadata=self.metadata)

    def _rpc(self, service: str, name: str, request: Any, response: str) -> Any:
        path = f"/etcdserverpb.{service}/{name}"
        return self.unary(path, request, getattr(rpc_pb2, response))

    def put(self, key: bytes, value: bytes = b"", **fields: Any) -> Any:
        request = rpc_pb2.PutRequest(key=key, value=value, **fields)
        return self._rpc("KV", "Put", request, "PutResponse")

    def range(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        request = rpc_pb2.RangeRequest(key=key, range_end=range_end, **fields)
        return self._rpc("KV", "Range", request, "RangeResponse")

    def delete(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        request = rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end, **fields)
        return self._rpc("KV", "DeleteRange", request, "DeleteRangeResponse")

    def txn(self, compare: Any = (), success: Any = (), failure: Any = ()) -> Any:
        request = rpc_pb2.TxnRequest(compare=compare, success=success, failure=failure)
        return self._rpc("KV", "Txn", request, "TxnResponse")

    def compact(self, revision: int) -> Any:
        request = rpc_pb2.CompactionRequest(revision=revision)
        return self._rpc("KV", "Compact", request, "CompactionResponse")

    def grant(self, ttl: int, lease_id: int = 0) -> Any:
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=lease_id)
        return self._rpc("Lease", "LeaseGrant", request, "LeaseGrantResponse")

    def revoke(self, lease_id: int) -> Any:
        request = rpc_pb2.LeaseRevokeRequest(ID=lease_id)
        return self._rpc("Lease", "LeaseRevoke", request, "LeaseRevokeResponse")

    def time_to_live(self, lease_id: int, keys: bool = False) -> Any:
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return self._rpc("Lease", "LeaseTimeToLive", request, "LeaseTimeToLiveResponse")

    def leases(self) -> Any:
        return self._rpc(
            "Lease", "LeaseLeases", rpc_pb2.LeaseLeasesRequest(), "LeaseLeasesResponse"
        )

    def cluster(self, name: str, /, **fields: Any) -> Any:
        request = getattr(rpc_pb2, f"{name}Request")(**fields)
        return self._rpc("Cluster", name, request, f"{name}Response")

    def maintenance(self, name: str, /, **fields: Any) -> Any:
        request = getattr(rpc_pb2, f"{name}Request")(**fields)
        return self._rpc("Maintenance", name, request, f"{name}Response")

    def stream(self, path: str, request: Any, response: Any, timeout: float = 10.0) -> Any:
        method = self.channel.unary_stream(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return method(request, timeout=timeout, metadata=self.metadata)

    def snapshot(self) -> Iterator[Any]:
        path = "/etcdserverpb.Maintenance/Snapshot"
        responses: Iterator[Any] = self.stream(
            path, rpc_pb2.SnapshotRequest(), rpc_pb2.SnapshotResponse
        )
        return responses

    def bidi(self, path: str, request: Any, response: Any) -> Bidi:
        method = self.channel.stream_stream(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return Bidi(lambda requests: method(requests, metadata=self.metadata))

    def watch_stream(self) -> Bidi:
        return self.bidi("/etcdserverpb.Watch/Watch", rpc_pb2.WatchRequest, rpc_pb2.WatchResponse)

    def keep_alive_stream(self) -> Bidi:
        return self.bidi(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            rpc_pb2.LeaseKeepAliveRequest,
            rpc_pb2.LeaseKeepAliveResponse,
        )

    def lock(self, name: bytes, lease_id: int = 0, timeout: float = 10.0) -> Any:
        request = v3lock_pb2.LockRequest(name=name, lease=lease_id)
        return self.unary("/v3lockpb.Lock/Lock", request, v3lock_pb2.LockResponse, timeout)

    def unlock(self, key: bytes) -> Any:
        request = v3lock_pb2.UnlockRequest(key=key)
        return self.unary("/v3lockpb.Lock/Unlock", request, v3lock_pb2.UnlockResponse)

    def election(self, name: str, /, timeout: float = 10.0, **fields: Any) -> Any:
        kind = "LeaderRequest" if name == "Leader" else f"{name}Request"
        request = getattr(v3election_pb2, kind)(**fields)
        response = getattr(v3election_pb2, f"{name}Response")
        return self.unary(f"/v3electionpb.Election/{name}", request, response, timeout)

    def observe(self, name: bytes) -> Any:
        return self.stream(
            "/v3electionpb.Election/Observe",
            v3election_pb2.LeaderRequest(name=name),
            v3election_pb2.LeaderResponse,
        )


def create(key: bytes, range_end: bytes = b"", **fields: Any) -> rpc_pb2.WatchRequest:
    """The request that begins a watch."""
    return rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, **fields)
    )


def op_put(key: bytes, value: bytes = b"", **fields: Any) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value, **fields))


def op_range(key: bytes, range_end: bytes = b"", **fields: Any) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(
        request_range=rpc_pb2.RangeRequest(key=key, range_end=range_end, **fields)
    )


def op_delete(key: bytes, range_end: bytes = b"") -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(
        request_delete_range=rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end)
    )


def op_txn(compare: Any = (), success: Any = (), failure: Any = ()) -> rpc_pb2.RequestOp:
    return rpc_pb2.RequestOp(
        request_txn=rpc_pb2.TxnRequest(compare=compare, success=success, failure=failure)
    )


def created(key: bytes, revision: int) -> rpc_pb2.Compare:
    return rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.CREATE, create_revision=revision)


def pairs(response: Any) -> list[tuple[bytes, bytes]]:
    return [(kv.key, kv.value) for kv in response.kvs]


def event(message: Any) -> tuple[int, bytes, bytes]:
    """(kind, key, value) of a response with one event."""
    assert len(message.events) == 1, message
    one: kv_pb2.Event = message.events[0]
    return one.type, one.kv.key, one.kv.value
