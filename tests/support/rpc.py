"""A bare gRPC caller: one method, one message, no retry; what a test sends is what goes out."""

from __future__ import annotations

from typing import Any

import grpc

from kvstore.pb import rpc_pb2


class Rpc:
    """Unary calls to one endpoint by method name, e.g. `rpc.kv("Put", PutRequest(...))`."""

    def __init__(self, endpoint: str, timeout_s: float = 5.0) -> None:
        # A channel that reconnects at once: the tests restart servers on the same port.
        self.channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self.timeout_s = timeout_s

    def call(self, service: str, method: str, request: Any, timeout_s: float | None = None) -> Any:
        response = getattr(rpc_pb2, RESPONSES.get(method, f"{method}Response"))
        stub = self.channel.unary_unary(
            f"/etcdserverpb.{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return stub(request, timeout=timeout_s or self.timeout_s)

    def put(self, key: bytes | str, value: bytes | str = b"", **options: Any) -> Any:
        return self.call(
            "KV", "Put", rpc_pb2.PutRequest(key=_bytes(key), value=_bytes(value), **options)
        )

    def range(self, key: bytes | str, end: bytes | str = b"", **options: Any) -> Any:
        return self.call(
            "KV", "Range", rpc_pb2.RangeRequest(key=_bytes(key), range_end=_bytes(end), **options)
        )

    def get(self, key: bytes | str, **options: Any) -> bytes | None:
        found = self.range(key, **options).kvs
        return found[0].value if found else None

    def delete(self, key: bytes | str, end: bytes | str = b"") -> Any:
        request = rpc_pb2.DeleteRangeRequest(key=_bytes(key), range_end=_bytes(end))
        return self.call("KV", "DeleteRange", request)

    def status(self) -> Any:
        return self.call("Maintenance", "Status", rpc_pb2.StatusRequest())

    def hash_kv(self, revision: int = 0) -> Any:
        return self.call("Maintenance", "HashKV", rpc_pb2.HashKVRequest(revision=revision))

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Rpc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


RESPONSES = {"Compact": "CompactionResponse"}


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
