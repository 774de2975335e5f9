"""Leadership transfer: bring the target level, then tell it to campaign (thesis 3.10).

A leader that has been removed hands over too, but first sees to it that the others know. In a
configuration that shrinks from two voters to one, the survivor holds the removal without knowing
that it is committed; were the leader to vanish now, the survivor would wait for its vote for ever.
"""

from __future__ import annotations

from raft.errors import NotLeader, TransferRefused
from raft.messages import TimeoutNow
from raft.quorum import has_quorum
from raft.state import State
from raft.types import NO_NODE, Role

__all__ = (
    "give_up_late_transfer",
    "hand_over_if_level",
    "retire_when_known",
    "transfer_leader",
)


def transfer_leader(state: State, target: int) -> None:
    """Starts handing over to `target`; proposals are refused until it is done or given up.

    Raises NotLeader, or TransferRefused if `target` is not another voter.
    """
    if state.role is not Role.LEADER:
        raise NotLeader("only the leader can hand its leadership over")
    if target == state.id:
        raise TransferRefused("this node leads already")
    if target not in state.conf.voters:
        raise TransferRefused(f"node {target} is not a voter")
    if state.transferee == target:
        return
    state.transferee = target
    state.transfer_elapsed = 0
    state.flush = True
    hand_over_if_level(state, target)


def hand_over_if_level(state: State, peer: int) -> None:
    """Tells the transfer target to campaign, once it has everything the leader has."""
    if peer == state.transferee and state.progress[peer].match == state.log.last_index:
        state.now.append(TimeoutNow(state.id, peer, state.term))


def give_up_late_transfer(state: State) -> None:
    """One tick of a transfer: after an election timeout the leader goes on leading."""
    if state.transferee != NO_NODE:
        state.transfer_elapsed += 1
        if state.transfer_elapsed >= state.config.election_ticks:
            state.transferee = NO_NODE


def retire_when_known(state: State) -> None:
    """A removed leader steps down once a majority of the others knows that it is removed."""
    informed = [
        peer
        for peer in state.conf.voters
        if state.progress[peer].known_commit >= state.retire_index
    ]
    if not has_quorum(state.conf.voters, informed):
        return
    successor = max(informed, key=lambda peer: state.progress[peer].match)
    hand_over = TimeoutNow(state.id, successor, state.term)
    state.become_follower(state.term, NO_NODE)
    state.now.append(hand_over)
