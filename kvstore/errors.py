"""Errors as etcd v3 clients know them: a gRPC code and an exact message.

Go, Java and Python clients match on the message first and the code second, so both are the
contract (etcd's rpctypes). Server and client share this module; it imports nothing of either.

Three questions each error answers: whose fault (`code`), may I retry (`retryable`), and is the
outcome known (`outcome_known`: False means a write may or may not have taken effect).
"""

from __future__ import annotations

from enum import IntEnum

__all__ = (
    "CATALOGUE",
    "Code",
    "EtcdError",
    "detach",
    "lookup",
)


class Code(IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class EtcdError(Exception):
    """A refusal or failure with the code and message that go on the wire."""

    def __init__(self, code: Code, message: str, *, outcome_known: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.outcome_known = outcome_known

    def __repr__(self) -> str:
        return f"EtcdError({self.code.name}, {self.message!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EtcdError):
            return NotImplemented
        return (self.code, self.message) == (other.code, other.message)

    def __hash__(self) -> int:
        return hash((self.code, self.message))

    @property
    def retryable(self) -> bool:
        """True when the same request may succeed later or at another member."""
        return self.code in (Code.UNAVAILABLE, Code.ABORTED) or self == TOO_MANY_REQUESTS


def detach(error: EtcdError) -> None:
    """Drops what raising has tied to an error; whoever catches one and keeps it calls this.

    The catalogue's errors live as long as the process; each raise would leave one more
    traceback on them, with the frames and requests that it holds.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


CATALOGUE: dict[str, EtcdError] = {}
"""Every error of this module by its message."""


def _error(code: Code, text: str, *, outcome_known: bool = True) -> EtcdError:
    error = EtcdError(code, text, outcome_known=outcome_known)
    CATALOGUE[text] = error
    return error


# Requests that are wrong in themselves.
EMPTY_KEY = _error(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = _error(Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = _error(Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = _error(Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = _error(Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
DUPLICATE_KEY = _error(Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_CLIENT_API_VERSION = _error(Code.INVALID_ARGUMENT, "etcdserver: invalid client api version")
INVALID_SORT_OPTION = _error(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
REQUEST_TOO_LARGE = _error(Code.INVALID_ARGUMENT, "etcdserver: request is too large")

# What the store's state refuses.
COMPACTED = _error(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = _error(
    Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"
)
NO_SPACE = _error(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
CORRUPT = _error(Code.DATA_LOSS, "etcdserver: corrupt cluster")
LEASE_NOT_FOUND = _error(Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = _error(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = _error(Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
WATCH_CANCELED = _error(Code.CANCELLED, "etcdserver: watch canceled")
TOO_MANY_REQUESTS = _error(Code.UNKNOWN, "etcdserver: too many requests")
"""etcd declares ResourceExhausted, but puts Unknown on the wire; clients see the latter."""

# Membership.
MEMBER_EXISTS = _error(Code.FAILED_PRECONDITION, "etcdserver: member ID already exist")
PEER_URL_EXISTS = _error(Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
NOT_ENOUGH_STARTED = _error(
    Code.UNKNOWN, "etcdserver: re-configuration failed due to not enough started members"
)
MEMBER_BAD_URLS = _error(Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
MEMBER_NOT_FOUND = _error(Code.NOT_FOUND, "etcdserver: member not found")
MEMBER_NOT_LEARNER = _error(
    Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member"
)
LEARNER_NOT_READY = _error(
    Code.FAILED_PRECONDITION,
    "etcdserver: can only promote a learner member which is in sync with leader",
)
TOO_MANY_LEARNERS = _error(
    Code.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster"
)
UNHEALTHY = _error(Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
NOT_SUPPORTED_FOR_LEARNER = _error(
    Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"
)
BAD_LEADER_TRANSFEREE = _error(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
NOT_LEADER = _error(Code.FAILED_PRECONDITION, "etcdserver: not leader")

# Leadership, time and life.
NO_LEADER = _error(Code.UNAVAILABLE, "etcdserver: no leader")
LEADER_CHANGED = _error(Code.UNAVAILABLE, "etcdserver: leader changed")
NOT_CAPABLE = _error(Code.FAILED_PRECONDITION, "etcdserver: not capable")
STOPPED = _error(Code.UNAVAILABLE, "etcdserver: server stopped", outcome_known=False)
TIMEOUT = _error(Code.UNAVAILABLE, "etcdserver: request timed out", outcome_known=False)
TIMEOUT_LEADER_FAILURE = _error(
    Code.UNAVAILABLE,
    "etcdserver: request timed out, possibly due to previous leader failure",
    outcome_known=False,
)
TIMEOUT_CONNECTION_LOST = _error(
    Code.UNAVAILABLE,
    "etcdserver: request timed out, possibly due to connection lost",
    outcome_known=False,
)
TIMEOUT_APPLIED_INDEX = _error(
    Code.UNAVAILABLE,
    "etcdserver: request timed out, waiting for the applied index took too long",
    outcome_known=False,
)
TIMEOUT_LEADER_TRANSFER = _error(
    Code.UNKNOWN, "etcdserver: request timed out, leader transfer took too long"
)
PROPOSAL_DROPPED = _error(Code.UNKNOWN, "raft proposal dropped")
NOT_PRIMARY_LESSOR = _error(Code.UNKNOWN, "not a primary lessor")
CANCELED = _error(Code.CANCELLED, "etcdserver: request canceled", outcome_known=False)

# Authentication.
AUTH_NOT_ENABLED = _error(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
ROOT_USER_MISSING = _error(Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
ROOT_ROLE_MISSING = _error(
    Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role"
)
USER_EXISTS = _error(Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
USER_EMPTY = _error(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
USER_NOT_FOUND = _error(Code.FAILED_PRECONDITION, "etcdserver: user name not found")
ROLE_EXISTS = _error(Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
ROLE_NOT_FOUND = _error(Code.FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_EMPTY = _error(Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
PERMISSION_NOT_GIVEN = _error(Code.INVALID_ARGUMENT, "etcdserver: permission not given")
PERMISSION_DENIED = _error(Code.PERMISSION_DENIED, "etcdserver: permission denied")
INVALID_AUTH_TOKEN = _error(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")

# Lock and election recipes.
ELECTION_NOT_LEADER = _error(Code.UNKNOWN, "election: not leader")
ELECTION_NO_LEADER = _error(Code.UNKNOWN, "election: no leader")
ELECTION_LEADER_FIELD = _error(Code.UNKNOWN, '"leader" field must be provided')
MUTEX_SESSION_EXPIRED = _error(Code.UNKNOWN, "mutex: session is expired")


_LONG_FORM = " desc = "
"""Go prints a status inside a text as `rpc error: code = X desc = MESSAGE`."""


def lookup(code: int, message: str) -> EtcdError | None:
    """The catalogue entry that a status (`code`, `message`) from the wire means, if any.

    The message decides: several codes changed between etcd releases while the texts stayed, and
    a text may arrive in Go's long form (`cancel_reason` of a watch does). An entry is returned
    only if `code` is not OK.
    """
    if code == Code.OK:
        return None
    entry = CATALOGUE.get(message)
    if entry is None and message.startswith("rpc error: "):
        entry = CATALOGUE.get(message.partition(_LONG_FORM)[2])
    return entry
