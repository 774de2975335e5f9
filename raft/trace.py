"""One line of text per fact, for golden files, logs and failing tests; never parsed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
)
from raft.node import Persist, RaftNode, Ready
from raft.types import (
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    ReadState,
    Role,
    SnapshotMeta,
)

__all__ = (
    "conf_text",
    "entry_text",
    "message_text",
    "node_text",
    "persist_lines",
    "ready_lines",
)

_DATA_BYTES_SHOWN = 24
_LETTER = {Role.FOLLOWER: "F", Role.PRE_CANDIDATE: "P", Role.CANDIDATE: "C", Role.LEADER: "L"}


def entry_text(entry: Entry) -> str:
    """`index/term`, and what it holds: `7/2:abc`, `8/2+4` for "add voter 4", `9/3` when empty."""
    place = f"{entry.index}/{entry.term}"
    if entry.kind == EntryKind.CONF_CHANGE:
        return f"{place}[{_change_text(ConfChange.decode(entry.data))}]"
    if not entry.data:
        return place
    return f"{place}:{_data_text(entry.data)}"


def _data_text(data: bytes) -> str:
    text = repr(bytes(data[:_DATA_BYTES_SHOWN]))[2:-1]
    return text if len(data) <= _DATA_BYTES_SHOWN else f"{text}...({len(data)})"


def _change_text(change: ConfChange) -> str:
    return f"{change.kind.name.lower()} {change.node_id}"


def _entries_text(entries: Sequence[Entry]) -> str:
    return " ".join(map(entry_text, entries))


def conf_text(conf: ConfState) -> str:
    """`1,2,3` and, where there are learners, `1,2,3+4`."""
    voters = ",".join(map(str, conf.voters))
    learners = ",".join(map(str, conf.learners))
    return f"{voters}+{learners}" if learners else voters


def _meta_text(meta: SnapshotMeta) -> str:
    return f"{meta.index}/{meta.term} conf={conf_text(meta.conf)}"


def message_text(message: Message) -> str:
    """`1->3 t2 append prev=7/2 commit=7 ents=[8/2:x]`."""
    return f"{message.sender}->{message.to} t{message.term} {_body_text(message)}"


def _body_text(message: Message) -> str:
    match message:
        case RequestPreVote():
            return f"pre-vote? log={message.last_index}/{message.last_term}"
        case PreVoteReply():
            return f"pre-vote {'granted' if message.granted else 'refused'}"
        case RequestVote():
            forced = " forced" if message.forced else ""
            return f"vote? log={message.last_index}/{message.last_term}{forced}"
        case Append():
            head = f"append prev={message.prev_index}/{message.prev_term} commit={message.commit}"
            return f"{head} ents=[{_entries_text(message.entries)}]"
        case AppendReply(rejected=True):
            hint = f"{message.hint_index}/{message.hint_term}"
            return f"append rejected at={message.index} hint={hint}"
        case AppendReply():
            return f"append ok to={message.index}"
        case CommitNotice():
            return f"committed to={message.commit}"
        case Heartbeat():
            return f"heartbeat commit={message.commit}{_read_text(message.read_id)}"
        case HeartbeatReply():
            return f"heartbeat ok{_read_text(message.read_id)}"
        case InstallSnapshot():
            return f"snapshot {_meta_text(message.meta)}"
        case ForwardProposal():
            return f"forward propose {' '.join(map(_data_text, message.datas))}"
        case ForwardConfChange():
            return f"forward conf {_change_text(ConfChange.decode(message.data))}"
        case ForwardRead():
            return f"forward read {_numbers_text(message.contexts)}"
        case ReadReply():
            return f"read {_numbers_text(message.contexts)} at={message.index}"
        case TimeoutNow():
            return "timeout-now"
        case _:
            return f"vote {'granted' if message.granted else 'refused'}"


def _read_text(read_id: int) -> str:
    return f" read={read_id}" if read_id else ""


def _numbers_text(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def _hard_state_text(hard_state: HardState) -> str:
    return f"t{hard_state.term} vote={hard_state.vote} commit={hard_state.commit}"


def persist_lines(persist: Persist) -> Iterator[str]:
    """What is to be written, and the promises that wait for it."""
    parts = ["persist" if persist.must_sync else "persist unsynced"]
    if persist.hard_state is not None:
        parts.append(_hard_state_text(persist.hard_state))
    if persist.snapshot is not None:
        parts.append(f"snapshot {_meta_text(persist.snapshot)}")
    if persist.entries:
        parts.append(f"ents=[{_entries_text(persist.entries)}]")
    yield " ".join(parts)
    for message in persist.messages:
        yield f"  then {message_text(message)}"


def _read_state_text(read: ReadState) -> str:
    return f"read {read.context} {'failed' if read.index is None else f'at={read.index}'}"


def ready_lines(ready: Ready) -> Iterator[str]:
    """Everything in a Ready, one fact a line."""
    for message in ready.messages:
        yield f"send {message_text(message)}"
    if ready.persist is not None:
        yield from persist_lines(ready.persist)
    if ready.committed:
        yield f"apply {_entries_text(ready.committed)}"
    yield from map(_read_state_text, ready.reads)
    for peer in ready.snapshot_targets:
        yield f"snapshot wanted by {peer}"


def node_text(node: RaftNode) -> str:
    """`n1 t2 L lead=1 vote=1 log=1..9 commit=8 applied=8 stable=9 conf=1,2,3`."""
    return (
        f"n{node.node_id} t{node.term} {_LETTER[node.role]} lead={node.leader_id} "
        f"vote={node.vote} log={node.first_index}..{node.last_index} commit={node.commit_index} "
        f"applied={node.applied_index} stable={node.stable_index} conf={conf_text(node.conf)}"
    )
