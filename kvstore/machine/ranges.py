"""Answering a RangeRequest: which pairs, in what order, how many, and the response's bytes.

The order of work is etcd's, quirks included: the limit counts before sorting when the order is
"none", and after it otherwise; `count` ignores limit and filters, `more` does not.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from kvstore import errors
from kvstore.machine.jobs import Job
from kvstore.machine.limits import (
    COUNT_CACHE_ENTRIES,
    RANGE_CACHE_SLICES,
    SLICE_RECORDS,
    SLICE_VALUES,
)
from kvstore.machine.mvcc import Found, fetch, gone, walk
from kvstore.machine.range_cache import RangeCache, Stretch, kvs_fields
from kvstore.machine.tables import (
    AFTER_ALL_STAMPS,
    KEYS,
    REVISIONS,
    STAMP_BYTES,
    Version,
    floor_of,
    key_of,
    key_of_ordered,
    ordered_key,
    range_bounds,
    stamp_of,
)
from kvstore.machine.wire import int_field, pair, varint
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import RangeRequest
from kvstore.storage.store import ReadTxn

__all__ = ("CountCache", "RangeAnswer", "RangeReader", "select")

_ORDER_NONE = RangeRequest.SortOrder.NONE
_ASCEND = RangeRequest.SortOrder.ASCEND
_DESCEND = RangeRequest.SortOrder.DESCEND
_BY_KEY = RangeRequest.SortTarget.KEY
_BY_VERSION = RangeRequest.SortTarget.VERSION
_BY_CREATE = RangeRequest.SortTarget.CREATE
_BY_MOD = RangeRequest.SortTarget.MOD
_BY_VALUE = RangeRequest.SortTarget.VALUE

_KVS = b"\x12"
_MORE = b"\x18\x01"
_COUNT_FIELD = 4
_COUNT_ONE = b"\x20\x01"


class RangeAnswer(NamedTuple):
    """A RangeResponse without its header, and what a caller that pages wants to know."""

    chunks: list[bytes]
    """The body in pieces: putting a large one together takes long enough to be a thread's work."""
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody misses
    """Keys in the range, whatever limit and filters say."""
    more: bool
    returned: int
    """Pairs in the body."""
    last_key: bytes
    """Key of the last pair in the body (empty when there is none); in key order a next page
    starts at this + 00."""

    @property
    def body(self) -> bytes:
        """The RangeResponse."""
        return b"".join(self.chunks)


class CountCache:
    """Counts of ranges at a revision, which never change: the rest of a range that is paged
    through need not be counted for every page."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[bytes, bytes | None, int], int] = OrderedDict()

    def get(self, start: bytes, stop: bytes | None, revision: int) -> int | None:
        """The remembered count of [start, stop) of `keys` at `revision`."""
        return self._counts.get((start, stop, revision))

    def put(self, start: bytes, stop: bytes | None, revision: int, count: int) -> None:
        """Remembers a count; the oldest entry makes room."""
        self._counts[start, stop, revision] = count
        if len(self._counts) > COUNT_CACHE_ENTRIES:
            self._counts.popitem(last=False)


class RangeReader(NamedTuple):
    """Where ranges are read: a transaction, its newest revision, and what is compacted."""

    txn: ReadTxn
    revision: int
    compact_revision: int
    counts: CountCache | None = None
    cache: RangeCache | None = None
    """Both only for committed states: a revision of an open batch may still grow."""

    def range(self, request: RangeRequest) -> Job[RangeAnswer]:
        """Answers one request. Raises COMPACTED or FUTURE_REVISION."""
        revision = request.revision
        if revision <= 0:
            revision = self.revision
        elif revision > self.revision:
            raise errors.FUTURE_REVISION
        elif revision < self.compact_revision:
            raise errors.COMPACTED
        if not request.range_end and not (
            request.count_only or request.keys_only or _is_filtered(request)
        ):
            return self._point(request.key, revision)
        answer = yield from self._range(request, revision)
        return answer

    def _point(self, key: bytes, revision: int) -> RangeAnswer:
        ordered = ordered_key(key)
        found = self.txn.seek(KEYS, ordered + floor_of(revision))
        if (
            found is None
            or not found[1]
            or len(found[0]) != len(ordered) + STAMP_BYTES
            or not found[0].startswith(ordered)
        ):
            return _NOTHING
        revision_key = stamp_of(found[0][-STAMP_BYTES:])
        kv = self.txn.get(REVISIONS, revision_key)
        if kv is None:
            raise gone(revision_key)
        body = b"".join((_KVS, varint(len(kv)), kv, _COUNT_ONE))
        return RangeAnswer([body], 1, False, 1, key)

    def _range(self, request: RangeRequest, revision: int) -> Job[RangeAnswer]:
        bounds = range_bounds(request.key, request.range_end)
        if request.count_only:
            count = yield from self._count(*bounds, revision)
            return RangeAnswer([int_field(_COUNT_FIELD, count)], count, False, 0, b"")
        if _is_plain(request):
            answer = yield from self._in_key_order(request, bounds, revision)
        else:
            answer = yield from self._sorted(request, bounds, revision)
        return answer

    def _in_key_order(
        self, request: RangeRequest, bounds: tuple[bytes, bytes | None], revision: int
    ) -> Job[RangeAnswer]:
        """Encodes while it walks: nothing is sorted or filtered out."""
        start, stop = bounds
        limit = max(request.limit, 0)
        chunks: list[bytes] = []
        returned = spent = walks = 0
        last = b""
        position: bytes | None = start
        while position is not None and (not limit or returned < limit):
            if spent >= SLICE_VALUES:
                yield
                spent = 0
            want = limit - returned if limit else None
            stretch = self._kept(request, (position, stop), revision, want)
            if stretch is None:
                walks += 1
                keep = walks <= RANGE_CACHE_SLICES
                stretch = self._walked(request, (position, stop), revision, want, keep=keep)
            chunks.append(b"".join(stretch.fields))
            returned += len(stretch.fields)
            last = stretch.last or last
            spent += stretch.cost
            position = stretch.resume
        count = returned
        if position is not None:
            count += yield from self._rest(start, (position, stop), revision, returned)
        more = count > returned
        last_key = key_of_ordered(last) if last else b""
        if more and self.counts is not None:
            self.counts.put(ordered_key(last_key + b"\x00"), stop, revision, count - returned)
        return _answer(chunks, count=count, more=more, returned=returned, last_key=last_key)

    def _kept(
        self,
        request: RangeRequest,
        span: tuple[bytes, bytes | None],
        revision: int,
        want: int | None,
    ) -> Stretch | None:
        """The beginning of a span from memory, if it is there."""
        if self.cache is None or request.keys_only:
            return None
        return self.cache.take(*span, revision, want)

    def _walked(
        self,
        request: RangeRequest,
        span: tuple[bytes, bytes | None],
        revision: int,
        want: int | None,
        *,
        keep: bool,
    ) -> Stretch:
        """The beginning of a span from the store, as far as nothing of it is in memory."""
        start, stop = span
        edge, cache = stop, None
        if self.cache is not None and self.cache.revision == revision and not request.keys_only:
            cache = self.cache
            edge = cache.room(start, stop)
        floor = floor_of(revision)
        found, resume = walk(self.txn, start, edge, floor=floor, want=want, records=SLICE_VALUES)
        cost = SLICE_VALUES
        if resume is None:
            cost = max(len(found), SLICE_VALUES // 4)
            resume = edge
        elif not resume.endswith(AFTER_ALL_STAMPS):
            # Among the versions of a key. Places that memory is asked for lie between keys, so
            # back to its beginning; STALE_RUN is much less than a slice, so this ends.
            resume = resume[: -len(floor)]
        fields = self._encoded(request, found)
        if cache is not None and keep:
            cache.keep((start, resume), [item[0][:-STAMP_BYTES] for item in found], fields)
        last = found[-1][0][:-STAMP_BYTES] if found else b""
        return Stretch(fields, last, None if resume == stop else resume, cost)

    def _sorted(
        self, request: RangeRequest, bounds: tuple[bytes, bytes | None], revision: int
    ) -> Job[RangeAnswer]:
        """Finds first, then filters, sorts and cuts."""
        limit = max(request.limit, 0)
        cut_first = limit and request.sort_order == _ORDER_NONE and not _is_filtered(request)
        want = limit + 1 if cut_first else None
        found, resume = yield from select(self.txn, bounds, revision, want)
        count = len(found)
        if resume is not None:
            count += yield from self._rest(bounds[0], (resume, bounds[1]), revision, count)
        if _is_filtered(request):
            found = [item for item in found if _passes(request, item)]
        yield from self._sort(request, found)
        more = 0 < limit < len(found)
        if more:
            del found[limit:]
        chunks: list[bytes] = []
        for at in range(0, len(found), SLICE_VALUES):
            if at:
                yield
            chunks.append(b"".join(self._encoded(request, found[at : at + SLICE_VALUES])))
        last_key = key_of(found[-1][0]) if found else b""
        return _answer(chunks, count=count, more=more, returned=len(found), last_key=last_key)

    def _count(self, start: bytes, stop: bytes | None, revision: int) -> Job[int]:
        known = self.counts.get(start, stop, revision) if self.counts is not None else None
        if known is not None:
            return known
        count = 0
        floor = floor_of(revision)
        position: bytes | None = start
        while position is not None:
            part = walk(self.txn, position, stop, floor=floor, want=None, records=SLICE_RECORDS)
            count += len(part.found)
            position = part.resume
            if position is not None:
                yield
        if self.counts is not None and count > SLICE_RECORDS:
            self.counts.put(start, stop, revision, count)
        return count

    def _rest(
        self, start: bytes, rest: tuple[bytes, bytes | None], revision: int, before: int
    ) -> Job[int]:
        """How many keys follow the `before` ones that were found from `start` on."""
        known = self.counts.get(start, rest[1], revision) if self.counts is not None else None
        if known is not None:
            return known - before
        count = yield from self._count(rest[0], rest[1], revision)
        return count

    def _sort(self, request: RangeRequest, found: list[Found]) -> Job[None]:
        target = request.sort_target
        descending = request.sort_order == _DESCEND
        if target == _BY_KEY:
            if descending:
                found.reverse()
        elif target == _BY_VALUE:
            values: list[bytes] = []
            for at in range(0, len(found), SLICE_VALUES):
                if at:
                    yield
                pairs = fetch(self.txn, found[at : at + SLICE_VALUES])
                values.extend(KeyValue.FromString(kv).value for kv in pairs)
            order = sorted(range(len(found)), key=values.__getitem__, reverse=descending)
            found[:] = [found[i] for i in order]
        elif target in _SORT_KEYS:
            found.sort(key=_SORT_KEYS[target], reverse=descending)

    def _encoded(self, request: RangeRequest, found: list[Found]) -> list[bytes]:
        """The `kvs` fields of some versions."""
        if request.keys_only:
            return kvs_fields([_bare(*item) for item in found])
        return kvs_fields(fetch(self.txn, found))


def _answer(
    chunks: list[bytes], *, count: int, more: bool, returned: int, last_key: bytes
) -> RangeAnswer:
    if more:
        chunks.append(_MORE)
    chunks.append(int_field(_COUNT_FIELD, count))
    return RangeAnswer(chunks, count, more, returned, last_key)


_NOTHING = RangeAnswer([], 0, False, 0, b"")


def select(
    txn: ReadTxn, bounds: tuple[bytes, bytes | None], revision: int, want: int | None
) -> Job[tuple[list[Found], bytes | None]]:
    """Live versions of a range in key order, at most `want`; and where the rest begins."""
    found: list[Found] = []
    floor = floor_of(revision)
    position: bytes | None = bounds[0]
    while True:
        assert position is not None
        left = None if want is None else want - len(found)
        part = walk(txn, position, bounds[1], floor=floor, want=left, records=SLICE_RECORDS)
        found += part.found
        position = part.resume
        if position is None or (want is not None and len(found) >= want):
            return found, position
        yield


def _is_plain(request: RangeRequest) -> bool:
    """Whether the answer is a stretch of the range as it stands in key order."""
    order, target = request.sort_order, request.sort_target
    return target == _BY_KEY and order in (_ORDER_NONE, _ASCEND) and not _is_filtered(request)


def _is_filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _passes(request: RangeRequest, item: Found) -> bool:
    """Whether a version lies within the inclusive bounds; a bound of 0 is none."""
    version = Version.read(*item)
    low_mod, high_mod = request.min_mod_revision, request.max_mod_revision
    low_create, high_create = request.min_create_revision, request.max_create_revision
    return (
        (not low_mod or version.main >= low_mod)
        and (not high_mod or version.main <= high_mod)
        and (not low_create or version.create >= low_create)
        and (not high_create or version.create <= high_create)
    )


_SORT_KEYS = {
    _BY_VERSION: lambda item: Version.read(*item).version,
    _BY_CREATE: lambda item: Version.read(*item).create,
    _BY_MOD: lambda item: Version.read(*item).main,
}


def _bare(record_key: bytes, record: bytes) -> bytes:
    """An encoded pair without its value, from the version record alone."""
    version = Version.read(record_key, record)
    return pair(
        key_of(record_key),
        b"",
        create=version.create,
        mod=version.main,
        version=version.version,
        lease=version.lease,
    )
