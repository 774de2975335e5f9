"""Answers too large for one message: a range in pieces, and the whole state as a file."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.machine import View
from kvstore.machine.ranges import RangeAnswer
from kvstore.machine.wire import varint
from kvstore.node.limits import (
    FIRST_STREAM_CHUNK_KEYS,
    MAX_STREAM_CHUNK_KEYS,
    SNAPSHOT_STREAM_ALIGNMENT,
)
from kvstore.pb import rpc_pb2
from kvstore.storage.disk import GentleFile

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("range_chunks", "snapshot_chunks")


class _Page(NamedTuple):
    revision: int
    answer: RangeAnswer


def _without_totals(answer: RangeAnswer) -> bytes:
    """The body of a piece that is not the last: `more` and `count`, which end it, are left out."""
    tail = (b"\x18\x01" if answer.more else b"") + (
        b"\x20" + varint(answer.count) if answer.count else b""
    )
    body = answer.body
    assert body.endswith(tail), "a range's body does not end with its totals"
    return body[: len(body) - len(tail)]


async def range_chunks(
    node: Node, request: rpc_pb2.RangeRequest, max_bytes: int
) -> AsyncIterator[tuple[int, bytes, bool]]:
    """Pieces of a range in key order, all as of the first one's revision.

    The pieces put together are the answer that `range` gives; only the last carries the count
    and whether there is more. No view stays pinned between pieces: a slow reader holds nothing,
    but one that is overtaken by a compaction ends with COMPACTED.
    """
    if request.count_only:
        page = await _page(node, request, linearizable=not request.serializable)
        yield page.revision, page.answer.body, True
        return
    part = rpc_pb2.RangeRequest()
    part.CopyFrom(request)
    wanted = request.limit
    given = 0
    size = FIRST_STREAM_CHUNK_KEYS
    total: int | None = None
    revision = 0
    while True:
        part.limit = min(size, wanted - given) if wanted > 0 else size
        first = total is None
        page = await _page(node, part, linearizable=first and not request.serializable)
        answer = page.answer
        if first:
            total = answer.count
            revision = page.revision
            part.revision = request.revision if request.revision > 0 else revision
        given += answer.returned
        if not answer.more or (wanted > 0 and given >= wanted):
            break
        yield revision, _without_totals(answer), False
        part.key = answer.last_key + b"\x00"
        size = _next_size(size, sum(map(len, answer.chunks)), max_bytes)
    assert total is not None
    more = b"\x18\x01" if answer.more else b""
    count = b"\x20" + varint(total) if total else b""
    yield revision, _without_totals(answer) + more + count, True


def _next_size(size: int, body_bytes: int, max_bytes: int) -> int:
    """Twice or half as many keys, to stay near `max_bytes`."""
    if body_bytes * 2 <= max_bytes:
        return min(size * 2, MAX_STREAM_CHUNK_KEYS)
    if body_bytes > max_bytes:
        return max(size // 2, 1)
    return size


async def _page(node: Node, request: rpc_pb2.RangeRequest, *, linearizable: bool) -> _Page:
    frozen = rpc_pb2.RangeRequest()
    frozen.CopyFrom(request)

    def reading(view: View) -> Any:
        answer = yield from view.range(frozen)
        return _Page(view.revision, answer)

    page: _Page = await node.reading(reading, linearizable=linearizable)
    return page


async def snapshot_chunks(node: Node, chunk: int) -> AsyncIterator[tuple[bytes, int]]:
    """Our snapshot file with zeros behind it up to a multiple of SNAPSHOT_STREAM_ALIGNMENT.

    (etcd's clients refuse a backup of any other length; readers of the file stop at its trailer.)
    """
    running = node.running
    with tempfile.TemporaryDirectory(dir=running.scratch_dir(), prefix="backup-") as directory:
        path = await running.snapshots.write_backup(Path(directory))
        size = path.stat().st_size
        padding = -size % SNAPSHOT_STREAM_ALIGNMENT
        remaining = size + padding
        file = GentleFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        try:
            while remaining:
                offset = size + padding - remaining
                data = await running.copies.run(partial(file.read_at, offset, chunk))
                if not data:
                    data = bytes(min(remaining, chunk))
                remaining -= len(data)
                yield data, remaining
                await asyncio.sleep(0)
        finally:
            # It has no name soon; that it takes no space any more may take a while.
            running.copies.submit(file.give_back, lambda _value, _error: None)
