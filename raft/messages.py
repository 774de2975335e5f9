"""The messages between nodes: one NamedTuple per kind, and their form on the wire.

Every message starts with `sender, to, term`. A transport may lose, delay, reorder and duplicate
them. What a message promises, and when it may leave, is decided in `state`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

from raft.errors import WireError
from raft.limits import WIRE_INTEGER_MAX
from raft.types import ConfState, Entry, EntryKind, SnapshotMeta

__all__ = (
    "Append",
    "AppendReply",
    "CommitNotice",
    "ForwardConfChange",
    "ForwardProposal",
    "ForwardRead",
    "Heartbeat",
    "HeartbeatReply",
    "InstallSnapshot",
    "Message",
    "PreVoteReply",
    "ReadReply",
    "RequestPreVote",
    "RequestVote",
    "TimeoutNow",
    "VoteReply",
    "from_wire",
    "to_wire",
)


class RequestPreVote(NamedTuple):
    """Would you vote for me? Changes nothing on either side (thesis 9.6)."""

    sender: int
    to: int
    term: int
    """The term the sender would campaign in: its own plus one."""
    last_index: int
    last_term: int


class PreVoteReply(NamedTuple):
    """Granted: `term` is the one asked for. Refused: it is the answering node's own term."""

    sender: int
    to: int
    term: int
    granted: bool


class RequestVote(NamedTuple):
    """Vote for me; the sender has this term and its own vote on disk (thesis 3.4)."""

    sender: int
    to: int
    term: int
    last_index: int
    last_term: int
    forced: bool
    """The old leader asked for this election: a live leader is no reason to ignore it."""


class VoteReply(NamedTuple):
    """A grant is a promise: it leaves once term and vote are on disk."""

    sender: int
    to: int
    term: int
    granted: bool


class Append(NamedTuple):
    """Entries that follow (prev_index, prev_term); without entries a probe."""

    sender: int
    to: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    """The leader's commit index; the receiver follows as far as this message vouches."""
    entries: Sequence[Entry]


class AppendReply(NamedTuple):
    """Accepted: everything up to `index` is on disk. Rejected: nothing at `index` fits."""

    sender: int
    to: int
    term: int
    index: int  # type: ignore[assignment]  # our field, not tuple.index
    rejected: bool
    hint_index: int
    """Rejected: the logs can meet no higher than here, where the receiver has `hint_term`."""
    hint_term: int


class CommitNotice(NamedTuple):
    """What this receiver has acknowledged is committed up to `commit`; nobody answers.

    Sent when no append is on its way that could carry it. When it is lost the next append or
    heartbeat says the same.
    """

    sender: int
    to: int
    term: int
    commit: int


class Heartbeat(NamedTuple):
    """The leader is alive; `commit` never exceeds what this receiver has acknowledged."""

    sender: int
    to: int
    term: int
    commit: int
    read_id: int
    """The read round that the reply confirms; 0 when there is none."""


class HeartbeatReply(NamedTuple):
    """The sender still follows the receiver in this term (or, in a higher one, does not)."""

    sender: int
    to: int
    term: int
    read_id: int
    commit: int
    """What the sender knows to be committed."""


class InstallSnapshot(NamedTuple):
    """The snapshot `meta` stands ready, received and verified, beside this message."""

    sender: int
    to: int
    term: int
    meta: SnapshotMeta


class ForwardProposal(NamedTuple):
    """A follower passes proposals on. `epoch` and `serial` make a duplicate recognisable."""

    sender: int
    to: int
    term: int
    epoch: int
    serial: int
    datas: Sequence[bytes]


class ForwardConfChange(NamedTuple):
    """A follower passes a membership change on; `data` is an encoded ConfChange."""

    sender: int
    to: int
    term: int
    epoch: int
    serial: int
    data: bytes


class ForwardRead(NamedTuple):
    """A follower asks for a read index on behalf of these attempts."""

    sender: int
    to: int
    term: int
    contexts: Sequence[int]


class ReadReply(NamedTuple):
    """A quorum confirmed the leader after these attempts reached it."""

    sender: int
    to: int
    term: int
    index: int  # type: ignore[assignment]  # our field, not tuple.index
    contexts: Sequence[int]


class TimeoutNow(NamedTuple):
    """The leader hands over: campaign at once (thesis 3.10)."""

    sender: int
    to: int
    term: int


Message: TypeAlias = (
    RequestPreVote
    | PreVoteReply
    | RequestVote
    | VoteReply
    | Append
    | AppendReply
    | CommitNotice
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | ForwardProposal
    | ForwardConfChange
    | ForwardRead
    | ReadReply
    | TimeoutNow
)


def _shown(value: object) -> str:
    """A number, or what else it is: a text of it may be long, and of nested lists impossible."""
    return str(value) if type(value) is int else type(value).__name__


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value <= WIRE_INTEGER_MAX:
        raise WireError(f"{_shown(value)} is not an unsigned 64-bit integer")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise WireError(f"{_shown(value)} is not a flag")
    return value


def _data(value: object) -> bytes:
    if type(value) is not bytes:
        raise WireError(f"{type(value).__name__} where bytes belong")
    return value


def _sequence(value: object) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise WireError(f"{type(value).__name__} where a list belongs")
    return value


def _integers(value: object) -> list[int]:
    return [_integer(item) for item in _sequence(value)]


def _datas(value: object) -> list[bytes]:
    return [_data(item) for item in _sequence(value)]


def _entries(value: object) -> list[Entry]:
    entries = []
    for item in _sequence(value):
        if len(_sequence(item)) != len(Entry._fields):
            raise WireError(f"an entry of {len(item)} fields")
        index, term, kind, data = item
        # Spelled out instead of calling _integer four times: this runs for every entry received.
        if type(index) is not int or type(term) is not int or type(data) is not bytes:
            raise WireError("an entry with fields of the wrong type")
        if type(kind) is not int or kind not in _ENTRY_KINDS:
            raise WireError(f"an entry of the unknown kind {_shown(kind)}")
        entries.append(Entry(index, term, kind, data))
    return entries


def _meta(value: object) -> SnapshotMeta:
    fields = _sequence(value)
    if len(fields) != len(SnapshotMeta._fields):
        raise WireError(f"snapshot metadata of {len(fields)} fields")
    conf = _sequence(fields[2])
    if len(conf) != len(ConfState._fields):
        raise WireError(f"a configuration of {len(conf)} fields")
    voters, learners = tuple(_integers(conf[0])), tuple(_integers(conf[1]))
    if not voters or 0 in voters + learners or len({*voters, *learners}) != len(voters + learners):
        raise WireError("a configuration that is empty or names a node twice")
    index, term = _integer(fields[0]), _integer(fields[1])
    return SnapshotMeta(index, term, ConfState(tuple(sorted(voters)), tuple(sorted(learners))))


_ENTRY_KINDS: Final = frozenset(int(kind) for kind in EntryKind)
_HEAD: Final = (_integer, _integer, _integer)
_Readers: TypeAlias = tuple[Callable[[object], Any], ...]

# The numbers are the protocol: they never change and are never used again.
_KINDS: Final[dict[int, tuple[type[Any], _Readers]]] = {
    1: (RequestPreVote, (*_HEAD, _integer, _integer)),
    2: (PreVoteReply, (*_HEAD, _flag)),
    3: (RequestVote, (*_HEAD, _integer, _integer, _flag)),
    4: (VoteReply, (*_HEAD, _flag)),
    5: (Append, (*_HEAD, _integer, _integer, _integer, _entries)),
    6: (AppendReply, (*_HEAD, _integer, _flag, _integer, _integer)),
    7: (Heartbeat, (*_HEAD, _integer, _integer)),
    8: (HeartbeatReply, (*_HEAD, _integer, _integer)),
    9: (InstallSnapshot, (*_HEAD, _meta)),
    10: (ForwardProposal, (*_HEAD, _integer, _integer, _datas)),
    11: (ForwardConfChange, (*_HEAD, _integer, _integer, _data)),
    12: (ForwardRead, (*_HEAD, _integers)),
    13: (ReadReply, (*_HEAD, _integer, _integers)),
    14: (TimeoutNow, _HEAD),
    15: (CommitNotice, (*_HEAD, _integer)),
}
_NUMBER_OF: Final = {cls: number for number, (cls, _) in _KINDS.items()}


def to_wire(message: Message) -> tuple[Any, ...]:
    """The message as nested tuples, kind number first; msgpack packs it as it stands."""
    return (_NUMBER_OF[type(message)], *message)


def from_wire(sequence: object) -> Message:
    """Rebuilds what `to_wire` made, from lists or tuples; raises WireError for anything else.

    Beyond types it checks what any honest sender guarantees: a real sender and receiver, entries
    that follow one another from prev_index on, terms that never fall nor exceed the message's.
    """
    fields = _sequence(sequence)
    number = fields[0] if fields else None
    if type(number) is not int or number not in _KINDS:
        raise WireError(f"unknown message kind {_shown(number)}")
    cls, readers = _KINDS[number]
    if len(fields) != len(readers) + 1:
        raise WireError(f"{cls.__name__} with {len(fields) - 1} fields instead of {len(readers)}")
    message = cls(*[read(value) for read, value in zip(readers, fields[1:], strict=True)])
    if message.sender == 0 or message.to == 0:
        raise WireError(f"{cls.__name__} from nobody or to nobody")
    if cls is Append:
        _check_entries(message)
    elif cls is InstallSnapshot and message.meta.term > message.term:
        raise WireError("a snapshot of a term that is still to come")
    return cast("Message", message)


def _check_entries(message: Append) -> None:
    index, term = message.prev_index, message.prev_term
    for entry in message.entries:
        index += 1
        if entry[0] != index:
            raise WireError(f"entry {entry[0]} where {index} belongs")
        if entry[1] < term:
            raise WireError(f"entry {index} of term {entry[1]} after one of term {term}")
        term = entry[1]
    if term > message.term:
        raise WireError(f"an entry of term {term} from a leader of term {message.term}")
