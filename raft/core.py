"""step(): the gate every message passes, then a table from (role, kind) to its handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from raft import election, follower, proposals, reads, replication, snapshots
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
)
from raft.state import State
from raft.types import NO_NODE, Role

__all__ = ("HANDLERS", "step")

Handler: TypeAlias = Callable[[State, Any], None]

# A leader speaks: whoever hears it in its own term follows it.
_FROM_LEADER: Final[dict[type[Any], Handler]] = {
    Append: follower.handle_append,
    CommitNotice: follower.handle_commit_notice,
    Heartbeat: follower.handle_heartbeat,
    InstallSnapshot: snapshots.handle_install,
}
_FOR_ALL: Final[dict[type[Any], Handler]] = {
    **_FROM_LEADER,
    RequestPreVote: election.handle_pre_vote,
    RequestVote: election.handle_vote,
}

# What is not in the table is ignored: late replies to a role that is over, and the like.
HANDLERS: Final[dict[Role, dict[type[Any], Handler]]] = {
    Role.FOLLOWER: {
        **_FOR_ALL,
        ReadReply: reads.handle_read_reply,
        TimeoutNow: election.handle_timeout_now,
    },
    Role.PRE_CANDIDATE: {**_FOR_ALL, PreVoteReply: election.handle_pre_vote_reply},
    Role.CANDIDATE: {**_FOR_ALL, VoteReply: election.handle_vote_reply},
    Role.LEADER: {
        **_FOR_ALL,
        AppendReply: replication.handle_append_reply,
        HeartbeatReply: replication.handle_heartbeat_reply,
        ForwardProposal: proposals.handle_forward_proposal,
        ForwardConfChange: proposals.handle_forward_conf_change,
        ForwardRead: reads.handle_forward_read,
    },
}

_MEMBERS_ONLY: Final = frozenset(
    (
        PreVoteReply,
        VoteReply,
        AppendReply,
        HeartbeatReply,
        ForwardProposal,
        ForwardConfChange,
        ForwardRead,
    )
)
"""Kinds that only a member of the configuration in use has a reason to send. A removed node may
still send them, even with a higher term, and must not disturb anyone. The other kinds may come
from a node that this one does not know yet."""


def step(state: State, message: Message) -> None:
    """Feeds one message in. Stale, duplicate and foreign ones change nothing."""
    kind = type(message)
    if message.to != state.id or message.sender == state.id:
        return
    if kind in _MEMBERS_ONLY and message.sender not in state.members:
        return
    if message.term != state.term:
        if message.term < state.term:
            _answer_lower_term(state, message)
            return
        if not _enter_higher_term(state, message):
            return
    handler = HANDLERS[state.role].get(kind)
    if handler is not None:
        handler(state, message)


def _enter_higher_term(state: State, message: Message) -> bool:
    """Moves to the message's term if it proves that the term exists; False: ignore the message.

    A pre-vote asks about a term that nobody has entered, and so does the grant of one.
    """
    match message:
        case RequestPreVote():
            return not state.hears_leader()
        case PreVoteReply(granted=True):
            return True
        case RequestVote(forced=False) if state.hears_leader():
            return False
        case Append() | CommitNotice() | Heartbeat() | InstallSnapshot():
            state.become_follower(message.term, message.sender)
        case _:
            state.become_follower(message.term, NO_NODE)
    return True


def _answer_lower_term(state: State, message: Message) -> None:
    """A sender that is behind learns the term, or it would be locked out for ever (R7).

    An old leader behind a partial partition steps down on the reply; a pre-candidate catches up.
    """
    sender = message.sender
    match message:
        case Append() | CommitNotice() | Heartbeat() | InstallSnapshot():
            state.now.append(HeartbeatReply(state.id, sender, state.term, 0, 0))
        case RequestPreVote():
            state.now.append(PreVoteReply(state.id, sender, state.term, False))
        case RequestVote():
            state.now.append(VoteReply(state.id, sender, state.term, False))
        case _:
            pass
