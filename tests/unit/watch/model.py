"""A state machine in a few lines for the watch tests: a list of changes, and readings of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kvstore.pb import kv_pb2, rpc_pb2
from kvstore.watch import WatchHub, WatchStream

__all__ = ("Change", "ModelHistory", "ModelView", "create", "decode", "header", "hub_on", "take")

PUT, DELETE = 0, 1


class Change(NamedTuple):
    """As the contract has it."""

    revision: int
    sub: int
    kind: int
    key: bytes
    kv: bytes
    created: bool
    lease: int


class ModelView:
    """The model as of one moment."""

    def __init__(self, history: ModelHistory) -> None:
        self._history = history
        self.revision = history.revision
        self.compact_revision = history.compact_revision
        self.closed = False
        history.open_views += 1

    def changes(self, start_revision: int, stop_revision: int) -> Iterator[Change]:
        assert start_revision >= self.compact_revision, "reads below the compact revision"
        assert stop_revision <= self.revision + 1, "reads beyond its view"
        for change in self._history.log:
            assert not self.closed, "reads after close"
            if start_revision <= change.revision < stop_revision:
                self._history.changes_read += 1
                yield change

    def previous(self, key: bytes, revision: int) -> bytes | None:
        assert not self.closed
        assert self.compact_revision <= revision <= self.revision
        return self._history.value_at(key, revision)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        self._history.open_views -= 1


class ModelHistory:
    """An MVCC history: revision 1 is the empty store."""

    def __init__(self) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.log: list[Change] = []
        self.open_views = 0
        self.changes_read = 0

    def view(self) -> ModelView:
        return ModelView(self)

    def commit(self, *operations: tuple[bytes, bytes | None]) -> list[Change]:
        """One revision: (key, value) puts, (key, None) deletes (nothing, if it is not there)."""
        revision, made = self.revision + 1, []
        for key, value in operations:
            before = self.value_at(key, revision)
            if value is None and before is None:
                continue
            kv = kv_pb2.KeyValue(key=key, mod_revision=revision)
            if value is not None:
                old = kv_pb2.KeyValue.FromString(before) if before is not None else None
                kv.create_revision = old.create_revision if old else revision
                kv.version = old.version + 1 if old else 1
                kv.value = value
            change = Change(
                revision,
                len(made),
                DELETE if value is None else PUT,
                key,
                kv.SerializeToString(),
                kv.version == 1,
                0,
            )
            made.append(change)
            self.log.append(change)
        if made:
            self.revision = revision
        return made

    def value_at(self, key: bytes, revision: int) -> bytes | None:
        for change in reversed(self.log):
            if change.key == key and change.revision <= revision:
                return None if change.kind == DELETE else change.kv
        return None

    def compact(self, revision: int) -> None:
        assert self.compact_revision < revision <= self.revision
        self.compact_revision = revision


def header(revision: int) -> bytes:
    """The header field of a member 2 in cluster 1, term 3."""
    encoded = rpc_pb2.ResponseHeader(
        cluster_id=1, member_id=2, revision=revision, raft_term=3
    ).SerializeToString()
    return b"\x0a" + bytes([len(encoded)]) + encoded


def pseudo_random(seed: int = 1):  # type: ignore[no-untyped-def]
    """A `random(n)` that is the same in every run."""
    state = seed

    def random(n: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state >> 33) % n

    return random


def hub_on(history: ModelHistory, max_response_bytes: int = 1 << 20) -> WatchHub:
    return WatchHub(history, header, max_response_bytes=max_response_bytes, random=pseudo_random())


def create(key: bytes, end: bytes = b"", **fields: object) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(
        create_request=rpc_pb2.WatchCreateRequest(key=key, range_end=end, **fields)
    )


def cancel(watch_id: int) -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=watch_id))


def progress() -> rpc_pb2.WatchRequest:
    return rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest())


def decode(message: bytes) -> rpc_pb2.WatchResponse:
    return rpc_pb2.WatchResponse.FromString(message)


def take(stream: WatchStream, count: int = 1 << 20) -> list[rpc_pb2.WatchResponse]:
    return [decode(message) for message in stream.take(count, 1 << 40)]


def pump_dry(hub: WatchHub, limit: int = 100_000) -> int:
    """Pumps until nothing is waiting; returns the number of slices."""
    for slices in range(1, limit):
        if not hub.pump():
            return slices
    raise AssertionError("catching up does not end")
