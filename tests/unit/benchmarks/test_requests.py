"""Requests: what is cut out of them and put into them, as bytes and as frames."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import calls
from benchmarks.generator.messages import Messages, fields, varint
from benchmarks.generator.requests import Method, Space, draw, framed, key_of, request
from benchmarks.generator.watching import event_name
from kvstore.api.http2 import frames
from kvstore.api.http2.frames import FrameSplitter
from kvstore.api.http2.headers import HeaderDecoder
from kvstore.pb import rpc_pb2


def test_requests_are_what_protobuf_would_make() -> None:
    put = rpc_pb2.PutRequest(key=key_of(7), value=calls.value_of(100))
    assert calls.put(100).message(7) == put.SerializeToString()
    many = rpc_pb2.RangeRequest(key=key_of(5), range_end=key_of(1005))
    assert calls.range_keys(1000).message(5) == many.SerializeToString()
    gone = rpc_pb2.DeleteRangeRequest(key=key_of(1))
    assert calls.delete().message(1) == gone.SerializeToString()
    lease = rpc_pb2.LeaseGrantRequest.FromString(calls.grant(60).message(3))
    assert (lease.TTL, lease.ID) == (60, 0)


def test_a_compare_and_put_asks_for_one_key_throughout() -> None:
    txn = rpc_pb2.TxnRequest.FromString(calls.compare_and_put(100).message(42))
    assert txn.compare[0].key == txn.success[0].request_put.key == key_of(42)
    assert txn.failure[0].request_range.key == key_of(42)
    assert txn.compare[0].WhichOneof("target_union") == "version"


def test_a_refused_put_has_a_condition_that_no_existing_key_meets() -> None:
    method = calls.refused_put(56_000)
    txn = rpc_pb2.TxnRequest.FromString(method.message(7))
    (condition,) = txn.compare
    assert (condition.key, condition.version) == (key_of(7), 0)
    assert condition.result == rpc_pb2.Compare.EQUAL
    assert len(txn.success) == 1
    assert not txn.failure
    assert method.writes == 0
    assert len(framed(method.message(7))) <= 65_535


@pytest.mark.parametrize("size", [100, 1024, 16 * 1024])
def test_loading_puts_each_key_once_and_fits_into_a_first_window(size: int) -> None:
    method, step = calls.load(size), calls.load_batch(size)
    keys = []
    for number in range(0, 3 * step, step):
        message = method.message(number)
        assert len(framed(message)) <= 65_535
        txn = rpc_pb2.TxnRequest.FromString(message)
        keys += [op.request_put.key for op in txn.success]
    assert keys == [key_of(number) for number in range(3 * step)]


def test_a_numbered_put_names_its_event() -> None:
    first, middle, last = calls.numbered_put(100).parts
    message = first + key_of(3) + middle + event_name(9) + last
    put = rpc_pb2.PutRequest.FromString(message)
    assert put.key == key_of(3)
    assert put.value.startswith(event_name(9))
    assert len(put.value) == 100


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 40_000])
def test_frames_hold_the_body_and_end_the_stream_once(size: int) -> None:
    body = bytes(size) or b"?"
    pieces, counted, writes = request("/a.B/C", body, 2)
    found = FrameSplitter().feed((9).to_bytes(4, "big").join(pieces))
    kinds = [kind for kind, *_ in found]
    assert kinds == [frames.HEADERS] + [frames.DATA] * (len(found) - 1)
    assert {stream for _, _, stream, _ in found} == {9}
    assert b"".join(payload for _, _, _, payload in found[1:]) == body
    assert [bool(flags & frames.END_STREAM) for _, flags, _, _ in found] == [
        *[False] * (len(found) - 1),
        True,
    ]
    assert (counted, writes) == (len(body), 2)
    decoder = HeaderDecoder(lambda fields: fields)
    assert (b":path", b"/a.B/C") in (decoder.read(found[0][3]) or ())


def test_keys_are_drawn_from_the_whole_space_the_same_each_time() -> None:
    def first(count: int, seed: int) -> list[int]:
        return list(itertools.islice(Space(1_000_000, seed).numbers(), count))

    numbers = first(10_000, 1)
    assert numbers == first(10_000, 1) != first(10_000, 2)
    assert min(numbers) < 2000
    assert max(numbers) > 998_000
    assert len(set(numbers)) > 9_900


def test_in_order_each_key_comes_once() -> None:
    drawn = list(draw([calls.delete()], Space(50, step=1)))
    assert len(drawn) == 50
    assert len({pieces for pieces, _, _ in drawn}) == 50


def test_methods_are_drawn_by_their_shares() -> None:
    methods = [calls.range_keys().often(9), calls.put(100)]
    drawn = itertools.islice(draw(methods, Space(1000)), 10_000)
    assert sum(writes for _, _, writes in drawn) == pytest.approx(1000, rel=0.15)


def test_a_method_travels_as_json() -> None:
    method = calls.compare_and_put(100)
    assert Method.from_json(method.to_json()) == method


def test_messages_come_together_however_they_are_cut() -> None:
    sent = [b"", b"one", bytes(300), b"last"]
    data = b"".join(framed(each) for each in sent)
    for size in (1, 3, 7, len(data)):
        messages = Messages()
        found = [
            each
            for at in range(0, len(data), size)
            for each in messages.feed(1, data[at : at + size])
        ]
        assert found == sent


def test_fields_of_a_message() -> None:
    answer = rpc_pb2.LeaseKeepAliveResponse(ID=2**62, TTL=300).SerializeToString()
    assert list(fields(answer)) == [(0x10, 2**62), (0x18, 300)]
    assert varint(300) == b"\xac\x02"
    answer = rpc_pb2.WatchResponse(created=True, events=[{}, {}]).SerializeToString()
    assert [tag for tag, _ in fields(answer)] == [0x18, 0x5A, 0x5A]
