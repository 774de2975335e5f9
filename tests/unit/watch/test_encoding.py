"""The hand-written messages are byte for byte what the generated classes write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.pb import kv_pb2, rpc_pb2
from kvstore.watch import encoding
from tests.unit.watch.model import decode, header

IDS = st.one_of(st.integers(-3, 300), st.integers(-(1 << 63), (1 << 63) - 1))
HEADER = rpc_pb2.ResponseHeader(cluster_id=1, member_id=2, revision=9, raft_term=3)
KEY_VALUES = st.builds(
    kv_pb2.KeyValue,
    key=st.binary(max_size=200),
    mod_revision=st.integers(0, 1 << 62),
    value=st.binary(max_size=300),
)


@given(IDS)
def test_answers_equal_the_generated_classes(watch_id: int) -> None:
    expected = {
        encoding.created(header(9), watch_id): {"created": True},
        encoding.canceled(header(9), watch_id): {"canceled": True},
        encoding.progress(header(9), watch_id): {},
        encoding.compacted(header(9), watch_id, 300): {"canceled": True, "compact_revision": 300},
    }
    for encoded, fields in expected.items():
        response = rpc_pb2.WatchResponse(header=HEADER, watch_id=watch_id, **fields)
        assert encoded == response.SerializeToString()


@given(st.text(max_size=300))
def test_refusals_equal_the_generated_classes(reason: str) -> None:
    response = rpc_pb2.WatchResponse(
        header=HEADER, watch_id=-1, created=True, canceled=True, cancel_reason=reason
    )
    assert decode(encoding.refused(header(9), reason)) == response


def events_of(
    kvs: list[tuple[bool, kv_pb2.KeyValue, kv_pb2.KeyValue | None]],
) -> list[kv_pb2.Event]:
    return [kv_pb2.Event(type=int(deleted), kv=kv, prev_kv=prev) for deleted, kv, prev in kvs]


EVENTS = st.lists(
    st.tuples(st.booleans(), KEY_VALUES, st.none() | KEY_VALUES), min_size=1, max_size=6
).map(events_of)


def fields_of(events: list[kv_pb2.Event]) -> list[bytes]:
    return [
        encoding.event_field(
            event.type,
            event.kv.SerializeToString(),
            event.prev_kv.SerializeToString() if event.HasField("prev_kv") else None,
        )
        for event in events
    ]


@given(IDS, EVENTS)
def test_event_responses_equal_the_generated_classes(
    watch_id: int, events: list[kv_pb2.Event]
) -> None:
    response = encoding.event_responses(
        header(9), encoding.watch_id_field(watch_id), fields_of(events), None
    )
    expected = rpc_pb2.WatchResponse(header=HEADER, watch_id=watch_id, events=events)
    assert response.pieces == [expected.SerializeToString()]
    assert response.events == len(events)
    assert response.size_bytes == expected.ByteSize()


@given(IDS, EVENTS, st.integers(1, 900))
def test_fragments_carry_all_events_and_stay_below_the_limit(
    watch_id: int, events: list[kv_pb2.Event], split_bytes: int
) -> None:
    response = encoding.event_responses(
        header(9), encoding.watch_id_field(watch_id), fields_of(events), split_bytes
    )
    pieces = [decode(piece) for piece in response.pieces]
    assert [event for piece in pieces for event in piece.events] == events
    assert [piece.fragment for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert {piece.watch_id for piece in pieces} == {watch_id}
    assert all(piece.header == HEADER for piece in pieces)
    for piece in pieces:
        assert len(piece.events) == 1 or piece.ByteSize() < split_bytes
    whole = rpc_pb2.WatchResponse(header=HEADER, watch_id=watch_id, events=events)
    assert (len(pieces) > 1) == (whole.ByteSize() >= split_bytes and len(events) > 1)
    assert response.size_bytes == sum(map(len, response.pieces))


def test_a_response_without_events_is_refused() -> None:
    with pytest.raises(AssertionError):
        encoding.event_responses(header(9), b"", [], None)
