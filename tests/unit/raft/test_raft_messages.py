from __future__ import annotations

from typing import Any

import msgpack
import pytest

from raft.errors import WireError
from raft.messages import (
    Append,
    AppendReply,
    CommitNotice,
    ForwardConfChange,
    ForwardProposal,
    ForwardRead,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    PreVoteReply,
    ReadReply,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
    from_wire,
    to_wire,
)
from raft.types import ConfChange, ConfChangeKind, ConfState, Entry, SnapshotMeta

CHANGE = ConfChange(ConfChangeKind.ADD_VOTER, 4, b"x").encode()
MESSAGES: list[Message] = [
    RequestPreVote(1, 2, 3, 4, 5),
    PreVoteReply(1, 2, 3, True),
    RequestVote(1, 2, 3, 4, 5, True),
    VoteReply(1, 2, 3, False),
    Append(1, 2, 3, 7, 2, 6, [Entry(8, 2, 0, b"a"), Entry(9, 3, 1, CHANGE)]),
    Append(1, 2, 3, 0, 0, 0, []),
    AppendReply(1, 2, 3, 9, True, 5, 1),
    CommitNotice(1, 2, 3, 4),
    Heartbeat(1, 2, 3, 4, 5),
    HeartbeatReply(1, 2, 3, 4, 5),
    InstallSnapshot(1, 2, 3, SnapshotMeta(9, 3, ConfState((1, 2), (3,)))),
    ForwardProposal(1, 2, 3, 4, 5, [b"a", b""]),
    ForwardConfChange(1, 2, 3, 4, 5, CHANGE),
    ForwardRead(1, 2, 3, [7, 8]),
    ReadReply(1, 2, 3, 9, [7]),
    TimeoutNow(1, 2, 2**64 - 1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_through_msgpack_and_back(message: Message) -> None:
    assert from_wire(msgpack.unpackb(msgpack.packb(to_wire(message)))) == message


def test_entries_and_metadata_come_back_as_themselves() -> None:
    append = from_wire(msgpack.unpackb(msgpack.packb(to_wire(MESSAGES[4]))))
    assert isinstance(append, Append)
    assert all(type(entry) is Entry for entry in append.entries)
    snapshot = from_wire(msgpack.unpackb(msgpack.packb(to_wire(MESSAGES[10]))))
    assert isinstance(snapshot, InstallSnapshot)
    assert type(snapshot.meta) is SnapshotMeta
    assert type(snapshot.meta.conf) is ConfState


def test_every_kind_has_its_number_for_ever() -> None:
    assert {type(m).__name__: to_wire(m)[0] for m in MESSAGES} == {
        "RequestPreVote": 1,
        "PreVoteReply": 2,
        "RequestVote": 3,
        "VoteReply": 4,
        "Append": 5,
        "AppendReply": 6,
        "Heartbeat": 7,
        "HeartbeatReply": 8,
        "InstallSnapshot": 9,
        "ForwardProposal": 10,
        "ForwardConfChange": 11,
        "ForwardRead": 12,
        "ReadReply": 13,
        "TimeoutNow": 14,
        "CommitNotice": 15,
    }


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_cut_short_or_with_more_it_is_refused(message: Message) -> None:
    wire = to_wire(message)
    for count in range(len(wire)):
        with pytest.raises(WireError):
            from_wire(wire[:count])
    with pytest.raises(WireError):
        from_wire((*wire, 0))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("junk", [None, "text", 1.5, {}, -1, 2**64])
def test_a_wrong_type_anywhere_is_refused(message: Message, junk: Any) -> None:
    wire = list(to_wire(message))
    for position in range(len(wire)):
        with pytest.raises(WireError):
            from_wire([*wire[:position], junk, *wire[position + 1 :]])


@pytest.mark.parametrize(
    "wire",
    [
        None,
        7,
        b"bytes",
        [],
        [0, 1, 2, 3],
        [99, 1, 2, 3],
        [True, 1, 2, 3, 4, 5],
        (14, 0, 2, 3),
        (14, 1, 0, 3),
        (2, 1, 2, 3, 1),
        (5, 1, 2, 3, 7, 2, 6, [(9, 2, 0, b"gap")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 1, 0, b"term falls")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 4, 0, b"term to come")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 2, 2, b"kind")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 2, True, b"kind")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 2, [], b"kind")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 2, 0, "text")]),
        (5, 1, 2, 3, 7, 2, 6, [(8, 2, 0)]),
        (5, 1, 2, 3, 7, 2, 6, [8]),
        (5, 1, 2, 3, 7, 4, 6, []),
        (9, 1, 2, 3, (9, 4, ((1,), ()))),
        (9, 1, 2, 3, (9, 3, ((), ()))),
        (9, 1, 2, 3, (9, 3, ((1,), (1,)))),
        (9, 1, 2, 3, (9, 3, ((0,), ()))),
        (9, 1, 2, 3, (9, 3, ((1,),))),
        (9, 1, 2, 3, (9, 3)),
    ],
)
def test_nonsense_is_refused(wire: Any) -> None:
    with pytest.raises(WireError):
        from_wire(wire)
