"""Single-step membership changes, and the timing rules that make them safe.

A change takes effect when it is applied (not, as in the thesis, when it is appended). That is safe
with three rules:
R1  no change is accepted before an entry of the leader's own term is committed: otherwise two
    leaders of different terms can each hold an unapplied change, with disjoint majorities;
R2  one unapplied change in the leader's log at a time, and no campaign with a committed change
    unapplied (see `election`); an append that carries a later change also carries a commit index
    that covers the earlier one, and both reach the disk in one Persist;
R3  learners answer vote requests (see `election`).
"""

from __future__ import annotations

from raft import confchange
from raft.errors import ConfChangeInvalid, ConfChangeRefused, RefusalReason
from raft.reads import check_round
from raft.replication import broadcast_heartbeat, commit_by_counting
from raft.state import State
from raft.types import NO_NODE, ConfChange, ConfState, Entry, EntryKind, Role

__all__ = (
    "apply_conf_change",
    "append_conf_change",
    "check_conf_change",
    "switch_conf",
)


def check_conf_change(state: State, change: ConfChange) -> None:
    """Leader: raises ConfChangeRefused unless the change may be appended now."""
    assert state.role is Role.LEADER, "only a leader can check a membership change"
    if state.transferee != NO_NODE:
        raise ConfChangeRefused(RefusalReason.TRANSFERRING)
    if state.log.commit < state.term_start:
        raise ConfChangeRefused(RefusalReason.NOT_COMMITTED_IN_TERM)
    if state.log.unresolved:
        raise ConfChangeRefused(RefusalReason.ANOTHER_UNAPPLIED)
    try:
        confchange.changed(state.conf, change)
    except ConfChangeInvalid as error:
        raise ConfChangeRefused(RefusalReason.INVALID, str(error)) from error


def append_conf_change(state: State, change: ConfChange) -> None:
    """Leader: appends a change that has been checked."""
    index = state.log.last_index + 1
    entry = Entry(index, state.term, int(EntryKind.CONF_CHANGE), change.encode())
    state.log.append_conf(entry)
    state.flush = True


def apply_conf_change(state: State, change: ConfChange) -> ConfState:
    """The change's entry is applied: switch to the configuration after it."""
    conf = confchange.changed(state.conf, change)
    state.log.resolve_conf_change()
    switch_conf(state, conf)
    return conf


def switch_conf(state: State, conf: ConfState) -> None:
    """Everything that depends on who decides is looked at again."""
    state.set_conf(conf)
    if state.role is Role.LEADER:
        if state.transferee not in conf.voters:
            state.transferee = NO_NODE
        state.flush = True
        # With fewer voters less is a majority.
        commit_by_counting(state)
        check_round(state)
        if not state.is_voter:
            # Removed. It leads on, counting nobody but the others and taking no proposals, until
            # they know.
            state.retire_index = state.log.commit
            broadcast_heartbeat(state)
    elif state.role is not Role.FOLLOWER and not state.is_voter:
        state.become_follower(state.term, NO_NODE)
