"""The values that the log, the wire and the caller share.

Tuples rather than dataclasses: an Entry is built for every write on every node, a NamedTuple
costs a third of a frozen dataclass, and msgpack packs it as it stands.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

__all__ = (
    "EMPTY_HARD_STATE",
    "NO_NODE",
    "ConfChange",
    "ConfChangeKind",
    "ConfState",
    "Entry",
    "EntryKind",
    "HardState",
    "ReadState",
    "Role",
    "SnapshotMeta",
)

NO_NODE = 0
"""The node id that means "nobody": no vote given, no leader known. Real ids are never 0."""


class EntryKind(IntEnum):
    """What an entry's data is to Raft. The empty entry of a new leader is NORMAL without data."""

    NORMAL = 0
    CONF_CHANGE = 1


class Entry(NamedTuple):
    """One position of the replicated log (thesis 3.5)."""

    index: int  # type: ignore[assignment]  # our field, not tuple.index
    term: int
    kind: int
    data: bytes


class HardState(NamedTuple):
    """What must be on disk before a promise leaves (thesis figure 3.1, "persistent state")."""

    term: int
    vote: int
    commit: int


EMPTY_HARD_STATE = HardState(0, NO_NODE, 0)


class ConfState(NamedTuple):
    """Who decides (voters) and who only follows (learners); both sorted ascending."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()


class SnapshotMeta(NamedTuple):
    """The last entry that a snapshot covers, and the configuration as of that entry."""

    index: int  # type: ignore[assignment]  # our field, not tuple.index
    term: int
    conf: ConfState


class ReadState(NamedTuple):
    """The outcome of one read_index attempt.

    `index`: a read served once the state machine has applied it is linearizable. None: the leader
    or the term changed before a quorum confirmed, so nothing is known.
    """

    context: int
    index: int | None  # type: ignore[assignment]  # our field, not tuple.index


class Role(IntEnum):
    """What a node is at this moment (thesis figure 3.3, with the pre-vote round of section 9.6)."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class ConfChangeKind(IntEnum):
    """Single-step membership changes (thesis 4.1); the numbers are etcd's."""

    ADD_VOTER = 0
    """Adds a voter, or promotes a learner to one."""
    REMOVE = 1
    UPDATE = 2
    """Changes only what `context` describes (addresses); the configuration stays."""
    ADD_LEARNER = 3


_CONF_CHANGE_HEAD = struct.Struct(">BQ")


class ConfChange(NamedTuple):
    """One membership change; `context` belongs to the caller and is carried unread."""

    kind: ConfChangeKind
    node_id: int
    context: bytes = b""

    def encode(self) -> bytes:
        """The bytes that stand in a CONF_CHANGE entry."""
        return _CONF_CHANGE_HEAD.pack(self.kind, self.node_id) + self.context

    @classmethod
    def decode(cls, data: bytes) -> ConfChange:
        """Reads what `encode` wrote; raises ValueError for anything else."""
        if len(data) < _CONF_CHANGE_HEAD.size:
            raise ValueError(f"a configuration change of {len(data)} bytes is too short")
        kind, node_id = _CONF_CHANGE_HEAD.unpack_from(data)
        return cls(ConfChangeKind(kind), node_id, data[_CONF_CHANGE_HEAD.size :])
