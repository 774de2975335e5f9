"""Configuration in, change in, configuration out: pure functions (thesis 4.1).

One node at a time, so that any majority before overlaps any majority after. When a change may be
proposed and when it takes effect is `membership`'s business.
"""

from __future__ import annotations

from raft.errors import ConfChangeInvalid
from raft.types import ConfChange, ConfChangeKind, ConfState

__all__ = ("changed", "checked")


def checked(conf: ConfState) -> ConfState:
    """The same configuration, sorted; raises ConfChangeInvalid if a node is in it twice."""
    nodes = conf.voters + conf.learners
    if len(set(nodes)) != len(nodes):
        raise ConfChangeInvalid(f"a node appears twice in {conf}")
    return ConfState(tuple(sorted(conf.voters)), tuple(sorted(conf.learners)))


def changed(conf: ConfState, change: ConfChange) -> ConfState:
    """The configuration after `change`.

    Adding what is there and removing what is not leave everything as it is, so that applying an
    entry twice is harmless. Raises ConfChangeInvalid when the last voter would go, or a voter
    would become a learner (its vote may be part of a quorum still in use: remove it first).
    """
    voters, learners = set(conf.voters), set(conf.learners)
    node = change.node_id
    match change.kind:
        case ConfChangeKind.ADD_VOTER:
            learners.discard(node)
            voters.add(node)
        case ConfChangeKind.ADD_LEARNER:
            if node in voters:
                raise ConfChangeInvalid(f"node {node} is a voter and cannot become a learner")
            learners.add(node)
        case ConfChangeKind.REMOVE:
            if voters == {node}:
                raise ConfChangeInvalid(f"node {node} is the last voter")
            voters.discard(node)
            learners.discard(node)
        case ConfChangeKind.UPDATE:
            pass
    return ConfState(tuple(sorted(voters)), tuple(sorted(learners)))
