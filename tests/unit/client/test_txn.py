"""Transactions as they go on the wire."""

from __future__ import annotations

import pytest

from kvstore.client.call import Effect
from kvstore.client.txn import (
    CreateRevision,
    Delete,
    Get,
    LeaseOf,
    ModRevision,
    Put,
    Txn,
    Value,
    Version,
)
from kvstore.client.values import DeleteResult, PutResult, RangeResult, TxnResult
from kvstore.pb import rpc_pb2 as pb

C = pb.Compare


def test_comparisons() -> None:
    cases = [
        (Value("k") == "v", C(result="EQUAL", target="VALUE", key=b"k", value=b"v")),
        (Value("k") != b"v", C(result="NOT_EQUAL", target="VALUE", key=b"k", value=b"v")),
        (Version("k") > 1, C(result="GREATER", target="VERSION", key=b"k", version=1)),
        (
            CreateRevision("k") < 2,
            C(result="LESS", target="CREATE", key=b"k", create_revision=2),
        ),
        (ModRevision("k") == 0, C(result="EQUAL", target="MOD", key=b"k", mod_revision=0)),
        (LeaseOf("k") == 5, C(result="EQUAL", target="LEASE", key=b"k", lease=5)),
        (
            Version("p/", prefix=True) == 0,
            C(result="EQUAL", target="VERSION", key=b"p/", range_end=b"p0", version=0),
        ),
    ]
    for compare, message in cases:
        assert compare.message == message


def test_a_comparison_is_not_a_truth_value() -> None:
    with pytest.raises(TypeError, match="decided by the server"):
        assert Version("k") == 0
    with pytest.raises(TypeError):
        hash(Version("k"))


def test_building() -> None:
    txn = (
        Txn()
        .when(Version("k") == 0)
        .when(Version("l") == 0)
        .then(Put("k", "v", lease=7), Get("k", prefix=True, limit=3))
        .otherwise(Delete("k", range_end="m"), Txn().then(Put("n")))
    )
    request = txn.build(2.5).request
    assert len(request.compare) == 2
    put, get = request.success
    assert (put.request_put.lease, get.request_range.limit) == (7, 3)
    delete, nested = request.failure
    assert delete.request_delete_range.range_end == b"m"
    assert nested.request_txn.success[0].request_put.key == b"n"
    assert txn.build(2.5).timeout_s == 2.5


def test_only_what_reads_is_repeated_like_a_read() -> None:
    assert Txn().build().effect is Effect.READ
    assert Txn().then(Get("k"), Txn().then(Get("l"))).build().effect is Effect.READ
    assert Txn().then(Get("k")).otherwise(Put("k")).build().effect is Effect.WRITE
    assert Txn().then(Txn().otherwise(Delete("k"))).build().effect is Effect.WRITE


def test_results() -> None:
    message = pb.TxnResponse(
        header=pb.ResponseHeader(revision=9),
        succeeded=True,
        responses=[
            pb.ResponseOp(response_put=pb.PutResponse()),
            pb.ResponseOp(response_range=pb.RangeResponse(count=4)),
            pb.ResponseOp(response_delete_range=pb.DeleteRangeResponse(deleted=2)),
            pb.ResponseOp(response_txn=pb.TxnResponse(succeeded=False)),
        ],
    )
    result = Txn().build().convert(message)
    assert result.succeeded
    assert result.header.revision == 9
    put, found, deleted, nested = result.responses
    assert isinstance(put, PutResult)
    assert put.prev_kv is None
    assert isinstance(found, RangeResult)
    assert found.count == 4
    assert found.first is None
    assert isinstance(deleted, DeleteResult)
    assert deleted.deleted == 2
    assert isinstance(nested, TxnResult)
    assert not nested.succeeded
