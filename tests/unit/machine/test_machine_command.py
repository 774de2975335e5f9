"""Commands and membership changes as they stand in log entries."""

from __future__ import annotations

import msgpack
import pytest

from kvstore.machine import (
    ABSENT,
    ANY_REVISION,
    BatchAction,
    BatchFailure,
    BatchItem,
    CommandError,
    CommandKind,
    ConfContext,
    Member,
    decode,
    encode,
)
from kvstore.machine.command import (
    batch_payload,
    expiry_payload,
    member_attributes_payload,
    outcomes_body,
    read_batch,
    read_expiry,
    read_member_attributes,
    read_outcomes,
)


def test_round_trip() -> None:
    data = encode(CommandKind.TXN, 2**64 - 1, b"payload")
    assert decode(data) == (CommandKind.TXN, 2**64 - 1, b"payload")
    assert data[:1] == b"\x03"
    assert len(data) == 9 + len(b"payload")


def test_empty_data_is_the_entry_of_a_new_leader() -> None:
    assert decode(b"") is None


def test_a_head_cut_short_is_an_error() -> None:
    with pytest.raises(CommandError, match="8 bytes is shorter"):
        decode(encode(CommandKind.PUT, 1, b"")[:8])


def test_an_unknown_kind_is_left_to_apply() -> None:
    assert decode(b"\xfa" + bytes(8)) == (0xFA, 0, b"")


def test_the_numbers_on_disk_stay() -> None:
    assert [(kind.name, kind.value) for kind in CommandKind] == [
        ("PUT", 1),
        ("DELETE_RANGE", 2),
        ("TXN", 3),
        ("COMPACT", 4),
        ("LEASE_GRANT", 5),
        ("LEASE_REVOKE", 6),
        ("LEASE_EXPIRE", 7),
        ("ALARM", 8),
        ("MEMBER_ATTRIBUTES", 9),
        ("CLUSTER_VERSION", 10),
        ("LEASE_CHECKPOINT", 11),
        ("BATCH", 40),
    ]


def test_msgpack_payloads() -> None:
    assert read_expiry(expiry_payload(3, [-5, 2**63 - 1], 9)) == (3, [-5, 2**63 - 1], 9)
    payload = member_attributes_payload(2**64 - 1, "näme", ("http://a", "http://b"))
    assert read_member_attributes(payload) == (2**64 - 1, "näme", ("http://a", "http://b"))


def test_an_expiry_of_the_first_logs_carries_no_time() -> None:
    assert read_expiry(msgpack.packb([3, [1, 2]])) == (3, [1, 2], 0)


def test_batches_and_their_outcomes() -> None:
    items = [
        BatchItem(b"a", ABSENT, BatchAction.PUT_NEW_LEASE, b"v", -7, 30, "registered"),
        BatchItem(b"\xff", ANY_REVISION, BatchAction.DELETE),
    ]
    assert read_batch(batch_payload(5, 2, items)) == (5, 2, items)
    outcomes = [(BatchFailure.NONE, 9), (BatchFailure.CONFLICT, 0)]
    assert read_outcomes(outcomes_body(outcomes)) == outcomes
    for damaged in ([1, 2, [3]], [1, 2, [[b"a"]]], [1, 2, 3], [1, 2]):
        with pytest.raises(CommandError):
            read_batch(msgpack.packb(damaged))


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({})])
def test_payloads_of_another_shape_are_errors(payload: bytes) -> None:
    with pytest.raises(CommandError):
        read_expiry(payload)
    with pytest.raises(CommandError):
        ConfContext.decode(payload)


def test_conf_context_round_trip() -> None:
    member = Member(2**64 - 1, "n", ("http://p",), ("http://c",), True)
    context = ConfContext(2**64 - 1, member, promote=True)
    assert ConfContext.decode(context.encode()) == context
