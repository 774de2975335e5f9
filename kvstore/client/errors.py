"""What can go wrong in a call, as types: whose fault, may I retry, did the write take effect.

`KvError` is an `EtcdError`, so it compares equal to the entries of `kvstore.errors`:
`error == errors.COMPACTED` holds for the error a server sent with that message.
"""

from __future__ import annotations

from enum import Enum

from kvstore import errors as catalogue
from kvstore.errors import Code, EtcdError, lookup

__all__ = (
    "ClientClosedError",
    "CompactedError",
    "ConnectError",
    "CorruptClusterError",
    "DeadlineError",
    "ElectionError",
    "FutureRevisionError",
    "InvalidRequestError",
    "KvError",
    "LeaseExistsError",
    "LeaseLostError",
    "LeaseNotFoundError",
    "LockCanceledError",
    "LockTimeoutError",
    "MemberNotFoundError",
    "NoLeaderError",
    "NoSpaceError",
    "NotLeaderError",
    "NotSupportedError",
    "Outcome",
    "PermissionDeniedError",
    "PreconditionError",
    "SnapshotCorruptError",
    "TooManyRequestsError",
    "UnauthenticatedError",
    "UnavailableError",
    "WatchCanceled",
    "WatchCompacted",
    "from_status",
)


class Outcome(Enum):
    """What is known about the effect of a request that failed."""

    APPLIED = "applied"
    NOT_APPLIED = "not applied"
    UNKNOWN = "unknown"


class KvError(EtcdError):
    """A call failed. `code` and `message` are the status, `outcome` says what became of a write."""

    default_code = Code.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        outcome: Outcome = Outcome.NOT_APPLIED,
        endpoint: str = "",
    ) -> None:
        super().__init__(
            self.default_code if code is None else code,
            message,
            outcome_known=outcome is not Outcome.UNKNOWN,
        )
        self.outcome = outcome
        self.endpoint = endpoint

    def mark_unknown(self) -> None:
        """An earlier attempt of the same call may have been executed."""
        self.outcome = Outcome.UNKNOWN
        self.outcome_known = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.message!r}, {self.outcome.value})"


class UnavailableError(KvError):
    """The server, or the way to it, is not there now; another try may succeed."""

    default_code = Code.UNAVAILABLE


class ConnectError(UnavailableError):
    """No connection could be made: the request was never sent, so nothing was applied."""


class NoLeaderError(UnavailableError):
    """The member that was asked knows no leader."""


class DeadlineError(KvError):
    """The deadline passed before an answer came. A write may still take effect later."""

    default_code = Code.DEADLINE_EXCEEDED

    @property
    def retryable(self) -> bool:
        return True


class InvalidRequestError(KvError):
    """The request is wrong in itself; it fails in the same way everywhere and always."""

    default_code = Code.INVALID_ARGUMENT


class CompactedError(KvError):
    """The revision asked for has been compacted away."""

    default_code = Code.OUT_OF_RANGE


class FutureRevisionError(KvError):
    """The revision asked for does not exist yet."""

    default_code = Code.OUT_OF_RANGE


class WatchCompacted(CompactedError):  # noqa: N818 - an end of the stream more than a mistake
    """History needed by the watch was compacted: events up to `compact_revision` may be missed.

    Read the state anew and watch from that read's revision + 1; `compact_revision` is the
    smallest revision a watch can still start from.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__(catalogue.COMPACTED.message)
        self.compact_revision = compact_revision


class WatchCanceled(KvError):  # noqa: N818 - as above
    """The server refused or ended the watch; `message` is its reason."""

    default_code = Code.CANCELLED


class LeaseNotFoundError(KvError):
    """The lease does not exist: never granted, revoked, or expired."""

    default_code = Code.NOT_FOUND


class LeaseExistsError(KvError):
    """A lease with the wanted id exists."""

    default_code = Code.FAILED_PRECONDITION


class LeaseLostError(KvError):
    """A lease that something depends on (a lock, a candidate) is gone."""

    default_code = Code.ABORTED

    @property
    def retryable(self) -> bool:
        return False


class LockTimeoutError(KvError):
    """The lock or the leadership was not won in time; the place in the queue was given up."""

    default_code = Code.DEADLINE_EXCEEDED


class LockCanceledError(KvError):
    """Waiting was ended by `cancel()`; the place in the queue was given up."""

    default_code = Code.CANCELLED


class ElectionError(KvError):
    """The candidate does not lead, or nobody does."""

    default_code = Code.FAILED_PRECONDITION


class NoSpaceError(KvError):
    """The database reached its quota; delete, compact, defragment, then disarm the alarm."""

    default_code = Code.RESOURCE_EXHAUSTED


class TooManyRequestsError(KvError):
    """The server refused work before doing any of it; try again more slowly."""


class PermissionDeniedError(KvError):
    """The user may not do this."""

    default_code = Code.PERMISSION_DENIED


class UnauthenticatedError(KvError):
    """The token is missing, unknown, or expired."""

    default_code = Code.UNAUTHENTICATED


class MemberNotFoundError(KvError):
    """No member has this id."""

    default_code = Code.NOT_FOUND


class NotLeaderError(KvError):
    """Only the leader can answer, and this member is not it."""

    default_code = Code.FAILED_PRECONDITION


class PreconditionError(KvError):
    """The state of the cluster forbids the request for now."""

    default_code = Code.FAILED_PRECONDITION


class CorruptClusterError(KvError):
    """The cluster found its members' data to differ and refuses writes."""

    default_code = Code.DATA_LOSS


class NotSupportedError(KvError):
    """The server does not have this method."""

    default_code = Code.UNIMPLEMENTED


class SnapshotCorruptError(KvError):
    """A snapshot arrived incomplete or with a wrong checksum."""

    default_code = Code.DATA_LOSS


class ClientClosedError(KvError):
    """The client was closed, or belongs to the parent of this process."""

    default_code = Code.CANCELLED


_BY_ENTRY: dict[str, type[KvError]] = {
    catalogue.COMPACTED.message: CompactedError,
    catalogue.FUTURE_REVISION.message: FutureRevisionError,
    catalogue.NO_SPACE.message: NoSpaceError,
    catalogue.CORRUPT.message: CorruptClusterError,
    catalogue.LEASE_NOT_FOUND.message: LeaseNotFoundError,
    catalogue.LEASE_EXISTS.message: LeaseExistsError,
    catalogue.TOO_MANY_REQUESTS.message: TooManyRequestsError,
    catalogue.MEMBER_NOT_FOUND.message: MemberNotFoundError,
    catalogue.NOT_LEADER.message: NotLeaderError,
    catalogue.NO_LEADER.message: NoLeaderError,
    catalogue.USER_EMPTY.message: UnauthenticatedError,
}

_BY_CODE: dict[Code, type[KvError]] = {
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.DEADLINE_EXCEEDED: DeadlineError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.FAILED_PRECONDITION: PreconditionError,
    Code.UNIMPLEMENTED: NotSupportedError,
    Code.UNAVAILABLE: UnavailableError,
    Code.UNAUTHENTICATED: UnauthenticatedError,
}

# Transport texts (gRPC's core and Go's) that are only produced before a request was sent.
_NEVER_SENT = (
    "failed to connect to all addresses",
    "there is no address available",
    "there is no connection available",
    "DNS resolution failed",
    "Name resolution failure",
    "empty address list",
)

# Codes of the transport or of an unknown text after which a write may have been done or not.
_UNDECIDED = frozenset(
    {
        Code.CANCELLED,
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.ABORTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    }
)

_UNREADABLE_ANSWER = "Exception deserializing response!"


def from_status(code: int, message: str, *, write: bool, endpoint: str = "") -> KvError:
    """The typed error for a gRPC status; `write` says whether the request could change state."""
    known = Code(code)
    if any(text in message for text in _NEVER_SENT) and known is Code.UNAVAILABLE:
        return ConnectError(message, endpoint=endpoint)
    entry = lookup(code, message)
    kind = _BY_ENTRY.get(entry.message) if entry is not None else None
    if kind is None:
        kind = _BY_CODE.get(known, KvError)
    return kind(
        message if entry is None else entry.message,
        code=known,
        outcome=_outcome(known, message, entry, write),
        endpoint=endpoint,
    )


def _outcome(code: Code, message: str, entry: EtcdError | None, write: bool) -> Outcome:
    if not write:
        return Outcome.NOT_APPLIED
    if entry is not None:
        return Outcome.NOT_APPLIED if entry.outcome_known else Outcome.UNKNOWN
    if code is Code.INTERNAL and message.startswith(_UNREADABLE_ANSWER):
        return Outcome.APPLIED
    return Outcome.UNKNOWN if code in _UNDECIDED else Outcome.NOT_APPLIED
