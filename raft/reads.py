"""Linearizable reads without the log: ReadIndex (thesis 6.4), many reads per round.

- A round begins with a fresh id and the commit index of that moment; heartbeats carry the id, and
  a quorum of replies proves that no other leader existed when it began. A reply counts for its own
  round only (R6). Reads that arrive meanwhile wait for the next round.
- A new leader's commit index may lag behind what its predecessor acknowledged, so no round begins
  before an entry of its own term is committed; reads are held, not dropped (R5).
- Each attempt ends in exactly one ReadState; without an index if leader or term changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from raft.limits import FORWARDED_READ_TIMEOUTS, READS_WAITING_MAX
from raft.messages import ForwardRead, Heartbeat, ReadReply
from raft.quorum import has_quorum
from raft.state import State
from raft.types import NO_NODE, ReadState, Role

__all__ = (
    "can_begin_round",
    "check_round",
    "confirm",
    "expire_forwarded",
    "flush_reads",
    "handle_forward_read",
    "handle_read_reply",
    "read_index",
)


def read_index(state: State, context: int) -> None:
    """Begins one attempt; `context` must be new for each."""
    reads = state.reads
    if state.role is Role.LEADER:
        _enqueue(state, state.id, (context,))
    elif state.leader_id == NO_NODE or len(reads.forwarded) >= READS_WAITING_MAX:
        reads.done.append(ReadState(context, None))
    else:
        patience_ticks = FORWARDED_READ_TIMEOUTS * state.config.election_ticks
        reads.forwarded[context] = state.ticks + patience_ticks
        reads.unsent.append(context)


def _enqueue(state: State, requester: int, contexts: Iterable[int]) -> None:
    reads = state.reads
    for context in contexts:
        if len(reads.waiting) < READS_WAITING_MAX:
            reads.waiting.append((requester, context))
        elif requester == state.id:
            reads.done.append(ReadState(context, None))


def handle_forward_read(state: State, message: ForwardRead) -> None:
    """Leader: a follower's reads join its own."""
    _enqueue(state, message.sender, message.contexts)


def flush_reads(state: State) -> None:
    """A Ready is being taken: begin a round, or forward what has gathered."""
    reads = state.reads
    if reads.unsent:
        state.now.append(ForwardRead(state.id, state.leader_id, state.term, tuple(reads.unsent)))
        reads.unsent = []
    if reads.waiting and not reads.round_reads and can_begin_round(state):
        _begin_round(state)


def can_begin_round(state: State) -> bool:
    """Whether the leader's commit index can be trusted to cover all that was acknowledged."""
    return state.role is Role.LEADER and state.log.commit >= state.term_start


def _begin_round(state: State) -> None:
    reads = state.reads
    reads.round_id += 1
    reads.round_index = state.log.commit
    reads.round_reads, reads.waiting = reads.waiting, []
    reads.round_acks = {state.id}
    if state.is_only_voter:
        check_round(state)
        return
    for peer in state.conf.voters:
        if peer != state.id:
            known = min(state.progress[peer].match, state.log.commit)
            state.now.append(Heartbeat(state.id, peer, state.term, known, reads.round_id))


def confirm(state: State, peer: int, read_id: int) -> None:
    """Leader: `peer` confirms the round `read_id`."""
    reads = state.reads
    if reads.round_reads and read_id == reads.round_id:
        reads.round_acks.add(peer)
        check_round(state)


def check_round(state: State) -> None:
    """Answers the reads of the round under way, if a quorum of the voters has confirmed it."""
    reads = state.reads
    if not reads.round_reads or not has_quorum(state.conf.voters, reads.round_acks):
        return
    index = reads.round_index
    remote: dict[int, list[int]] = {}
    for requester, context in reads.round_reads:
        if requester == state.id:
            reads.done.append(ReadState(context, index))
        else:
            remote.setdefault(requester, []).append(context)
    for requester, contexts in remote.items():
        state.now.append(ReadReply(state.id, requester, state.term, index, tuple(contexts)))
    reads.round_reads = []
    reads.round_acks = set()


def handle_read_reply(state: State, message: ReadReply) -> None:
    """Follower: the leader of this term has confirmed these attempts."""
    if message.sender != state.leader_id:
        return
    for context in message.contexts:
        if state.reads.forwarded.pop(context, None) is not None:
            state.reads.done.append(ReadState(context, message.index))


def expire_forwarded(state: State) -> None:
    """One tick: attempts whose request or answer was lost end without an index."""
    forwarded = state.reads.forwarded
    while forwarded:
        context = next(iter(forwarded))
        if forwarded[context] > state.ticks:
            return
        del forwarded[context]
        state.reads.done.append(ReadState(context, None))
