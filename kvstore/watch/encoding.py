"""WatchResponse messages written by hand, so that shared parts are encoded once.

Protobuf lets a message be put together from its encoded fields. A response is
`header field + watch_id field + flags + event fields`; a thousand watchers of one key differ
in the watch_id field at most. Fields stand in ascending order and defaults are left out, so the
bytes equal what the generated classes write (a test holds this).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from kvstore.watch.history import DELETE

__all__ = (
    "Response",
    "canceled",
    "compacted",
    "created",
    "event_field",
    "event_responses",
    "progress",
    "refused",
    "watch_id_field",
)

_U64: Final = (1 << 64) - 1

# Tags of WatchResponse: field number << 3 | wire type.
_WATCH_ID: Final = b"\x10"
_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_COMPACT_REVISION: Final = b"\x28"
_CANCEL_REASON: Final = b"\x32"
_FRAGMENT: Final = b"\x38\x01"
_EVENT: Final = b"\x5a"

# Tags of mvccpb.Event.
_TYPE_DELETE: Final = b"\x08\x01"
_KV: Final = b"\x12"
_PREV_KV: Final = b"\x1a"

_NO_WATCH: Final = -1
"""The watch_id of answers that belong to no watcher or to all of a stream."""


class Response(NamedTuple):
    """What is queued on a stream as one: a message, or the fragments of one."""

    pieces: list[bytes]
    events: int
    size_bytes: int

    @classmethod
    def of(cls, pieces: list[bytes], events: int) -> Response:
        """Measures the pieces."""
        return cls(pieces, events, sum(map(len, pieces)))


def _varint(value: int) -> bytes:
    """A protobuf varint; negative numbers take the ten bytes of their 64-bit complement."""
    value &= _U64
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def watch_id_field(watch_id: int) -> bytes:
    """The watch_id field; nothing for id 0, the default."""
    return _WATCH_ID + _varint(watch_id) if watch_id else b""


def event_field(kind: int, kv: bytes, prev_kv: bytes | None) -> bytes:
    """One element of `events` around encoded KeyValues."""
    parts = [_TYPE_DELETE] if kind == DELETE else []
    parts += [_KV, _varint(len(kv)), kv]
    if prev_kv is not None:
        parts += [_PREV_KV, _varint(len(prev_kv)), prev_kv]
    event = b"".join(parts)
    return b"".join((_EVENT, _varint(len(event)), event))


def created(header: bytes, watch_id: int) -> bytes:
    """The answer to a create request that was accepted."""
    return header + watch_id_field(watch_id) + _CREATED


def refused(header: bytes, reason: str) -> bytes:
    """The answer to a create request that was not: created and canceled at once, id -1."""
    text = reason.encode()
    return b"".join(
        (
            header,
            watch_id_field(_NO_WATCH),
            _CREATED,
            _CANCELED,
            _CANCEL_REASON,
            _varint(len(text)),
            text,
        )
    )


def canceled(header: bytes, watch_id: int) -> bytes:
    """The answer to a cancel request."""
    return header + watch_id_field(watch_id) + _CANCELED


def compacted(header: bytes, watch_id: int, compact_revision: int) -> bytes:
    """The end of a watcher whose next revision is no longer in the history."""
    assert compact_revision > 0, f"a watcher was overtaken by compaction {compact_revision}"
    return b"".join(
        (
            header,
            watch_id_field(watch_id),
            _CANCELED,
            _COMPACT_REVISION,
            _varint(compact_revision),
        )
    )


def progress(header: bytes, watch_id: int = _NO_WATCH) -> bytes:
    """A mark without events: all up to the header's revision was delivered."""
    return header + watch_id_field(watch_id)


def event_responses(
    header: bytes,
    id_field: bytes,
    events: Sequence[bytes],
    split_bytes: int | None,
    count: int | None = None,
) -> Response:
    """The response that carries `events`, as one message.

    An element may be several event fields in one piece; `count` then says how many there are.

    With `split_bytes`, a response that reaches that size goes out as several messages below it
    (a single event larger than that still travels alone), all but the last marked `fragment`.
    """
    assert events, "a response without events would be a progress mark"
    size = len(header) + len(id_field) + sum(map(len, events))
    count = len(events) if count is None else count
    if split_bytes is None or size < split_bytes or len(events) < 2:
        return Response([b"".join((header, id_field, *events))], count, size)
    head_size = len(header) + len(id_field) + len(_FRAGMENT)
    pieces: list[bytes] = []
    start, size = 0, head_size
    for position, event in enumerate(events):
        if position > start and size + len(event) >= split_bytes:
            pieces.append(b"".join((header, id_field, _FRAGMENT, *events[start:position])))
            start, size = position, head_size
        size += len(event)
    pieces.append(b"".join((header, id_field, *events[start:])))
    return Response.of(pieces, count)
