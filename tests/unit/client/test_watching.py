"""The watch cursor: every revision once, whatever breaks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import errors as catalogue
from kvstore.client.errors import (
    InvalidRequestError,
    KvError,
    NoLeaderError,
    PermissionDeniedError,
    UnavailableError,
    WatchCanceled,
    WatchCompacted,
    from_status,
)
from kvstore.client.limits import WATCH_FRAGMENTS_MAX
from kvstore.client.requests import watch_request
from kvstore.client.values import WatchFilter
from kvstore.client.watching import WatchCursor
from kvstore.errors import Code
from kvstore.pb import kv_pb2, rpc_pb2


def message(revision: int = 0, events: tuple[int, ...] = (), **fields: Any) -> Any:
    return rpc_pb2.WatchResponse(
        header=rpc_pb2.ResponseHeader(revision=revision),
        events=[kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"k", mod_revision=each)) for each in events],
        **fields,
    )


def cursor(start: int = 0, *, require_leader: bool = False) -> WatchCursor:
    return WatchCursor(watch_request("k", start_revision=start), require_leader=require_leader)


def start_of(watch: WatchCursor) -> int:
    return watch.open_request().create_request.start_revision


def test_the_request() -> None:
    create = watch_request(
        "", prefix=True, prev_kv=True, filters=[WatchFilter.NO_DELETE], fragment=True
    )
    assert (create.key, create.range_end) == (b"\0", b"\0")
    assert list(create.filters) == [1]
    assert create.prev_kv
    assert create.fragment
    assert watch_request("").key == b"\0"


def test_from_now_on_is_fixed_by_the_first_answer() -> None:
    watch = cursor()
    assert start_of(watch) == 0
    assert start_of(watch) == 0  # not created: now is still now
    assert watch.feed(message(7, created=True)) is None
    assert watch.created
    assert start_of(watch) == 8
    assert not watch.created
    watch.feed(message(20, created=True))
    assert start_of(watch) == 8


def test_a_start_in_the_past_is_not_moved_by_the_answer() -> None:
    watch = cursor(3)
    watch.feed(message(20, created=True))
    assert start_of(watch) == 3


def test_events_move_it_behind_the_last_one() -> None:
    watch = cursor(3)
    watch.feed(message(20, created=True))
    # Catching up: the header is ahead of the events.
    response = watch.feed(message(20, (4, 4, 6)))
    assert response is not None
    assert (response.revision, response.header.revision) == (6, 20)
    assert start_of(watch) == 7


def test_progress_moves_it_and_stale_progress_does_not() -> None:
    watch = cursor(3)
    response = watch.feed(message(9))
    assert response is not None
    assert response.is_progress
    assert start_of(watch) == 10
    assert watch.feed(message(5)) is None
    assert watch.feed(message(0)) is None
    assert start_of(watch) == 10


def test_fragments_become_one_response() -> None:
    watch = cursor(3)
    assert watch.feed(message(5, (4,), fragment=True)) is None
    assert watch.feed(message(5, (4,), fragment=True)) is None
    response = watch.feed(message(5, (5,)))
    assert response is not None
    assert [e.kv.mod_revision for e in response.events] == [4, 4, 5]


def test_fragments_cut_off_are_dropped_and_asked_for_again() -> None:
    watch = cursor(3)
    watch.feed(message(5, (4,), fragment=True))
    assert start_of(watch) == 3
    response = watch.feed(message(5, (4,)))
    assert response is not None
    assert len(response.events) == 1


def test_endless_fragments_are_refused() -> None:
    watch = cursor(3)
    piece = message(5, (4,), fragment=True)
    for _ in range(WATCH_FRAGMENTS_MAX):
        watch.feed(piece)
    with pytest.raises(KvError, match="fragments"):
        watch.feed(piece)


def test_repeated_events_are_not_shown_again() -> None:
    watch = cursor(3)
    watch.feed(message(5, (4, 5)))
    assert watch.feed(message(5, (4, 5))) is None
    response = watch.feed(message(6, (5, 6)))
    assert response is not None
    assert [e.kv.mod_revision for e in response.events] == [6]


def test_the_ends_of_a_watch() -> None:
    with pytest.raises(WatchCompacted) as compacted:
        cursor(3).feed(message(canceled=True, compact_revision=9))
    assert compacted.value.compact_revision == 9
    reason = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    with pytest.raises(PermissionDeniedError):
        cursor(3).feed(message(created=True, canceled=True, watch_id=-1, cancel_reason=reason))
    with pytest.raises(WatchCanceled, match="empty"):
        cursor(3).feed(message(canceled=True, cancel_reason="mvcc: watcher range is empty"))
    for end in (WatchCompacted(9), WatchCanceled("no"), InvalidRequestError("bad")):
        assert cursor().stream_failed(end, 3) is end


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("Socket closed"),
        from_status(Code.INTERNAL, "RST_STREAM", write=False),
        from_status(Code.CANCELLED, "etcdserver: watch canceled", write=False),
        from_status(Code.UNAVAILABLE, catalogue.NO_LEADER.message, write=False),
    ],
)
def test_a_lost_stream_is_opened_again(error: KvError) -> None:
    assert cursor().stream_failed(error, 1) is None


def test_a_required_leader_is_looked_for_at_every_endpoint() -> None:
    watch = cursor(require_leader=True)
    error = NoLeaderError("etcdserver: no leader")
    assert watch.stream_failed(error, 3) is None
    assert watch.stream_failed(error, 3) is None
    watch.feed(message(5, created=True))  # somebody has one
    assert watch.stream_failed(error, 3) is None
    assert watch.stream_failed(error, 3) is None
    assert watch.stream_failed(error, 3) is error


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=20),
    st.lists(st.integers(0, 6), max_size=12),
    st.booleans(),
)
def test_every_event_once_across_any_breaks(
    sizes: list[int], breaks: list[int], fragments: bool
) -> None:
    """A model server holds `sizes[i]` events of revision i + 2, and breaks off now and then."""
    history = [(i + 2, size) for i, size in enumerate(sizes)]
    watch = cursor(2)
    seen: list[int] = []
    for budget in [*breaks, 10**6]:
        start = start_of(watch)
        sent = [message(len(sizes) + 1, created=True)]
        for revision, size in history:
            if revision < start:
                continue
            if fragments:
                sent += [message(revision, (revision,), fragment=True)] * (size - 1)
                sent.append(message(revision, (revision,)))
            else:
                sent.append(message(revision, (revision,) * size))
            if revision % 3 == 0:
                sent.append(message(revision))
        for each in sent[:budget]:
            response = watch.feed(each)
            if response is not None:
                seen += [e.kv.mod_revision for e in response.events]
    assert seen == [revision for revision, size in history for _ in range(size)]
