"""Proposals: appended by the leader, forwarded by followers, refused when they cannot succeed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count, repeat
from typing import cast

from raft.errors import (
    ConfChangeRefused,
    DropReason,
    ProposalDropped,
    RefusalReason,
)
from raft.membership import append_conf_change, check_conf_change
from raft.messages import ForwardConfChange, ForwardProposal
from raft.state import State
from raft.types import NO_NODE, ConfChange, Entry, EntryKind, Role

__all__ = (
    "handle_forward_conf_change",
    "handle_forward_proposal",
    "propose",
    "propose_conf_change",
)

# Entry(...) runs a Python-level constructor; this one stays in C, at a third of the cost.
_new_entry = cast("Callable[[Iterable[object]], Entry]", partial(tuple.__new__, Entry))


def propose(state: State, datas: Sequence[bytes]) -> None:
    """Appends one entry per payload, or forwards them; raises ProposalDropped."""
    if not datas:
        return
    if state.id not in state.members:
        raise ProposalDropped(DropReason.NOT_A_MEMBER)
    if state.role is Role.LEADER:
        _append(state, datas)
        return
    if state.leader_id == NO_NODE:
        raise ProposalDropped(DropReason.NO_LEADER)
    serial = _next_serial(state)
    state.now.append(
        ForwardProposal(
            state.id, state.leader_id, state.term, state.forward_epoch, serial, tuple(datas)
        )
    )


def _append(state: State, datas: Sequence[bytes]) -> None:
    if state.transferee != NO_NODE:
        raise ProposalDropped(DropReason.TRANSFERRING)
    size_bytes = sum(map(len, datas))
    total_bytes = state.uncommitted_bytes + size_bytes
    # A batch larger than the limit passes when nothing else waits, or it never could.
    if state.uncommitted_bytes and total_bytes > state.config.max_uncommitted_bytes:
        raise ProposalDropped(DropReason.TOO_MUCH_UNCOMMITTED)
    log = state.log
    first = log.last_index + 1
    fields = zip(count(first), repeat(state.term), repeat(int(EntryKind.NORMAL)), datas)
    log.append(list(map(_new_entry, fields)))
    state.uncommitted_bytes = total_bytes
    state.uncommitted.append((log.last_index, size_bytes))
    state.flush = True


def propose_conf_change(state: State, change: ConfChange) -> None:
    """Appends or forwards a membership change; raises ConfChangeRefused."""
    if state.id not in state.members:
        raise ConfChangeRefused(RefusalReason.NOT_A_MEMBER)
    if state.role is Role.LEADER:
        check_conf_change(state, change)
        append_conf_change(state, change)
        return
    if state.leader_id == NO_NODE:
        raise ConfChangeRefused(RefusalReason.NO_LEADER)
    serial = _next_serial(state)
    state.now.append(
        ForwardConfChange(
            state.id, state.leader_id, state.term, state.forward_epoch, serial, change.encode()
        )
    )


def _next_serial(state: State) -> int:
    state.forward_serial += 1
    return state.forward_serial


def _is_new(state: State, message: ForwardProposal | ForwardConfChange) -> bool:
    """Whether this forward was not seen before: a duplicate must not take effect twice."""
    epoch, serial = state.forwards_seen.get(message.sender, (message.epoch, 0))
    if epoch == message.epoch and message.serial <= serial:
        return False
    state.forwards_seen[message.sender] = (message.epoch, message.serial)
    return True


def handle_forward_proposal(state: State, message: ForwardProposal) -> None:
    """Leader: as its own; what it would refuse is dropped, and the origin times out."""
    if _is_new(state, message):
        try:
            propose(state, message.datas)
        except ProposalDropped:
            return


def handle_forward_conf_change(state: State, message: ForwardConfChange) -> None:
    """Leader: as its own; what it would refuse is dropped, and the origin times out."""
    if _is_new(state, message):
        try:
            propose_conf_change(state, ConfChange.decode(message.data))
        except (ConfChangeRefused, ValueError):
            return
