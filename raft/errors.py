"""What the core refuses, and what it cannot survive.

Every class answers two questions: may the caller try again (`retryable`), and did anything change
(never: a refused call leaves the node as it was). `InvariantBroken` is the exception to both: the
process must end, since a promise that others rely on has been broken somewhere.
"""

# ruff: noqa: N818  (an error is named by what happened)

from __future__ import annotations

from enum import Enum

__all__ = (
    "ConfChangeInvalid",
    "ConfChangeRefused",
    "DropReason",
    "InvariantBroken",
    "NotLeader",
    "ProposalDropped",
    "RaftError",
    "RefusalReason",
    "TransferRefused",
    "WireError",
)


class RaftError(Exception):
    """Root of everything that `raft` raises on purpose."""

    retryable = False


class DropReason(Enum):
    """Why a proposal was not even appended."""

    NO_LEADER = "no leader is known"
    TRANSFERRING = "leadership is being handed over"
    TOO_MUCH_UNCOMMITTED = "too many bytes wait for a quorum"
    NOT_A_MEMBER = "this node is not in the configuration"


class ProposalDropped(RaftError):
    """The proposal went nowhere; it will never take effect, and may be tried again later."""

    retryable = True

    def __init__(self, reason: DropReason) -> None:
        super().__init__(f"proposal dropped: {reason.value}")
        self.reason = reason


class RefusalReason(Enum):
    """Why a membership change was not appended (rules R1 and R2 of the safety argument)."""

    NO_LEADER = "no leader is known"
    TRANSFERRING = "leadership is being handed over"
    NOT_COMMITTED_IN_TERM = "the leader has not committed an entry of its own term yet"
    ANOTHER_UNAPPLIED = "an earlier change has not been applied yet"
    NOT_A_MEMBER = "this node is not in the configuration"
    INVALID = "the configuration does not allow it"


class ConfChangeRefused(RaftError):
    """The membership change was not appended; all reasons but INVALID pass with time."""

    def __init__(self, reason: RefusalReason, detail: str = "") -> None:
        super().__init__(f"membership change refused: {detail or reason.value}")
        self.reason = reason
        self.retryable = reason is not RefusalReason.INVALID


class ConfChangeInvalid(RaftError):
    """No configuration can result from this change (last voter removed, voter made a learner)."""


class NotLeader(RaftError):
    """Only a leader can do this."""

    retryable = True


class TransferRefused(RaftError):
    """Leadership cannot go to that node: unknown, a learner, or the leader itself."""


class WireError(RaftError):
    """The bytes of a peer are not a message of this protocol; the peer is at fault."""


class InvariantBroken(RaftError):
    """Two promises contradict each other: data was lost or two leaders were elected. Stop now."""
