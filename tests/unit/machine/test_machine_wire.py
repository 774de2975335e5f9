"""Hand-made protobuf fields must be what protobuf itself writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvstore.machine.wire import (
    bytes_field,
    int_field,
    pair,
    tombstone,
    tombstone_event,
    varint,
)
from kvstore.pb.kv_pb2 import KeyValue
from kvstore.pb.rpc_pb2 import RangeResponse, TxnResponse

int64 = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20_000)
blobs = st.binary(max_size=300)


@given(int64)
def test_int_field(number: int) -> None:
    assert int_field(4, number) == RangeResponse(count=number).SerializeToString()
    if number:
        assert int_field(4, number) == b"\x20" + varint(number)


@given(blobs)
def test_bytes_field(blob: bytes) -> None:
    expected = KeyValue(value=blob).SerializeToString()
    assert bytes_field(5, blob) == (expected or b"\x2a\0")


def test_an_empty_message_is_present() -> None:
    answer = TxnResponse.FromString(bytes_field(1, b""))
    assert answer.HasField("header")


positive = st.integers(1, 2**63 - 1) | st.integers(1, 40_000)


@given(blobs.filter(len), blobs, positive, positive, positive, int64)
def test_a_pair_is_what_protobuf_writes(
    key: bytes, value: bytes, create: int, mod: int, version: int, lease: int
) -> None:
    expected = KeyValue(
        key=key,
        create_revision=create,
        mod_revision=mod,
        version=version,
        value=value,
        lease=lease,
    )
    made = pair(key, value, create=create, mod=mod, version=version, lease=lease)
    assert made == expected.SerializeToString()


@given(blobs, blobs, int64, int64)
def test_pairs_and_tombstones(key: bytes, value: bytes, number: int, lease: int) -> None:
    kv = KeyValue.FromString(pair(key, value, create=1, mod=number, version=3, lease=lease))
    assert (kv.key, kv.value, kv.lease, kv.mod_revision) == (key, value, lease, number)
    key = key or b"k"
    assert tombstone(key) == KeyValue(key=key).SerializeToString()
    event = KeyValue(key=key, mod_revision=7)
    assert tombstone_event(key, 7) == event.SerializeToString()
