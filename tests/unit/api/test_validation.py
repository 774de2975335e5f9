"""Checks before raft: each rule once, and etcd's quirks by name."""

from __future__ import annotations

import itertools
import random

import pytest

from kvstore import errors
from kvstore.api import validation
from kvstore.errors import EtcdError
from kvstore.machine.jobs import run
from kvstore.pb import rpc_pb2
from tests.unit.api.client import created, op_delete, op_put, op_range, op_txn


def refusal(*ops: rpc_pb2.RequestOp, max_ops: int = 128) -> EtcdError | None:
    """What check_txn says of a success list (and, alike, of a failure list)."""
    outcomes: list[EtcdError | None] = []
    for request in (rpc_pb2.TxnRequest(success=ops), rpc_pb2.TxnRequest(failure=ops)):
        try:
            run(validation.check_txn(request, max_ops))
            outcomes.append(None)
        except EtcdError as error:
            outcomes.append(error)
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


A, B, C = b"a", b"b", b"c"

DUPLICATES = [
    ("two puts", [op_put(A), op_put(A)]),
    ("put and its delete", [op_put(A), op_delete(A)]),
    ("delete, then put", [op_delete(A), op_put(A)]),
    ("put inside a deleted range", [op_delete(A, C), op_put(B)]),
    ("put at the start of a deleted range", [op_delete(A, C), op_put(A)]),
    ("put where two deleted ranges meet", [op_delete(A, B), op_delete(B, C), op_put(B)]),
    ("put and nested put", [op_put(A), op_txn([], [op_put(A)])]),
    ("put and nested put on failure", [op_put(A), op_txn([], [], [op_put(A)])]),
    ("two nested puts", [op_txn([], [op_put(A)]), op_txn([], [op_put(A)])]),
    ("nested puts of different branches", [op_txn([], [op_put(A)]), op_txn([], [], [op_put(A)])]),
    ("nested put, own delete", [op_txn([], [op_put(A)]), op_delete(A)]),
    ("nested delete, own put", [op_txn([], [op_delete(A)]), op_put(A)]),
    ("nested delete, then nested put", [op_txn([], [op_delete(A)]), op_txn([], [op_put(A)])]),
    ("deep inside", [op_txn([], [op_txn([], [op_put(A), op_put(A)])])]),
]

ALLOWED = [
    ("different keys", [op_put(A), op_put(B)]),
    ("overlapping deletes", [op_delete(A, C), op_delete(B), op_delete(B)]),
    ("put at the end of a deleted range", [op_delete(A, B), op_put(B)]),
    ("put before a deleted range", [op_delete(B, C), op_put(A)]),
    ("branches exclude each other", [op_txn([], [op_put(A)], [op_put(A)])]),
    ("put and delete in branches", [op_txn([], [op_put(A)], [op_delete(A)])]),
    (
        "quirk: nested put, then nested delete",
        [op_txn([], [op_put(A)]), op_txn([], [op_delete(A)])],
    ),
    ("quirk: delete from a key on", [op_delete(A, b"\0"), op_put(B)]),
    ("empty range", [op_delete(C, A), op_put(B)]),
    ("ranges", [op_put(A), op_range(A), op_range(A)]),
]


@pytest.mark.parametrize("ops", [case[1] for case in DUPLICATES], ids=[c[0] for c in DUPLICATES])
def test_a_key_may_not_change_twice(ops: list[rpc_pb2.RequestOp]) -> None:
    assert refusal(*ops) == errors.DUPLICATE_KEY


@pytest.mark.parametrize("ops", [case[1] for case in ALLOWED], ids=[c[0] for c in ALLOWED])
def test_these_are_not_changed_twice(ops: list[rpc_pb2.RequestOp]) -> None:
    assert refusal(*ops) is None


def test_branches_are_independent() -> None:
    request = rpc_pb2.TxnRequest(success=[op_put(A)], failure=[op_put(A), op_delete(B)])
    run(validation.check_txn(request, 128))


def test_overlaps_agree_with_trying_every_key() -> None:
    """The sorted intervals against the definition, on random flat transactions."""
    choose = random.Random(11)
    keys = [bytes((letter,)) for letter in b"abcdefgh"]
    refused = 0
    for _ in range(2000):
        puts = choose.sample(keys, choose.randint(1, 2))
        deletes = [(choose.choice(keys), choose.choice(keys)) for _ in range(choose.randint(1, 4))]
        ops = [op_put(key) for key in puts] + [op_delete(*ends) for ends in deletes]
        choose.shuffle(ops)
        clash = any(start <= key < stop for key, (start, stop) in itertools.product(puts, deletes))
        assert refusal(*ops) == (errors.DUPLICATE_KEY if clash else None), ops
        refused += clash
    assert 400 < refused < 1600


def test_nested_transactions_get_what_is_left_of_the_budget() -> None:
    inner = op_txn([], [op_range(A)] * 3)
    assert refusal(inner, max_ops=4) is None
    assert refusal(inner, max_ops=3) == errors.TOO_MANY_OPS
    assert refusal(op_range(A), inner, max_ops=4) == errors.TOO_MANY_OPS
    compares = rpc_pb2.TxnRequest(compare=[created(A, 0)] * 5)
    with pytest.raises(EtcdError, match="too many operations"):
        run(validation.check_txn(compares, 4))


def test_nested_operations_are_checked() -> None:
    assert refusal(op_txn([], [op_put(b"")])) == errors.EMPTY_KEY
    assert refusal(op_txn([created(b"", 0)])) == errors.EMPTY_KEY
    assert refusal(op_delete(b"")) == errors.EMPTY_KEY
    assert refusal(op_range(A, sort_order=9)) == errors.INVALID_SORT_OPTION
    assert refusal(op_put(A, b"v", ignore_value=True)) == errors.VALUE_PROVIDED
    assert refusal(op_txn([], [rpc_pb2.RequestOp()])) == errors.KEY_NOT_FOUND


def test_count_and_keys_come_before_duplicates() -> None:
    assert refusal(op_put(A), op_put(A), op_put(b"")) == errors.EMPTY_KEY
    assert refusal(op_put(A), op_put(A), max_ops=1) == errors.TOO_MANY_OPS


def test_large_transactions_are_checked_quickly() -> None:
    deletes = [op_delete(b"%06d" % number) for number in range(0, 20_000, 2)]
    puts = [op_put(b"%06d" % number) for number in range(1, 20_000, 2)]
    assert refusal(*deletes, *puts, max_ops=10**6) is None


def test_read_only_and_serializable() -> None:
    def kind(*ops: rpc_pb2.RequestOp) -> tuple[bool, bool]:
        request = rpc_pb2.TxnRequest(success=ops)
        read_only = validation.is_read_only(request)
        return read_only, read_only and validation.is_serializable(request)

    assert kind(op_range(A)) == (True, False)
    assert kind(op_range(A, serializable=True)) == (True, True)
    assert kind(op_range(A, serializable=True), op_range(A)) == (True, False)
    assert kind() == (True, True), "quirk: no operation at all is a local read"
    assert kind(op_txn([], [op_range(A)])) == (False, False), "quirk: nested counts as a write"
    assert kind(op_range(A), op_put(A)) == (False, False)


def test_costs() -> None:
    assert validation.put_cost(rpc_pb2.PutRequest(key=b"kk", value=b"vvv")) == 256 + 5
    request = rpc_pb2.TxnRequest(
        success=[op_put(A, b"1"), op_delete(B), op_range(C)],
        failure=[op_put(A, b"1"), op_txn([], [op_put(B, b"22")], [op_put(C)])],
    )
    assert run(validation.txn_cost(request)) == (256 + 2) + (256 + 3)
    assert run(validation.txn_cost(rpc_pb2.TxnRequest(success=[op_delete(A)]))) == 0


def test_peer_urls() -> None:
    good = ["https://b:2", " http://[::1]:2380", "unix:/path", "unixs://x"]
    assert validation.check_peer_urls(good) == sorted(url.strip() for url in good)
    for bad in ([], [""], ["a:1"], ["http://a"], ["http://a:1/x"], ["ftp://a:1"], ["http://a:x"]):
        with pytest.raises(EtcdError, match="given member URLs are invalid"):
            validation.check_peer_urls(bad)
