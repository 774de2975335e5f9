"""From a status to a typed error with a known or unknown outcome."""

from __future__ import annotations

import pytest

from kvstore import errors as catalogue
from kvstore.client import errors
from kvstore.client.errors import KvError, Outcome, from_status
from kvstore.errors import CATALOGUE, Code, EtcdError, lookup

REFUSED = "failed to connect to all addresses; last error: UNKNOWN: connection refused"


@pytest.mark.parametrize(
    ("code", "message", "kind", "outcome"),
    [
        (Code.UNAVAILABLE, REFUSED, errors.ConnectError, Outcome.NOT_APPLIED),
        (Code.UNAVAILABLE, "Socket closed", errors.UnavailableError, Outcome.UNKNOWN),
        (
            Code.UNAVAILABLE,
            "etcdserver: request timed out",
            errors.UnavailableError,
            Outcome.UNKNOWN,
        ),
        (Code.UNAVAILABLE, "etcdserver: no leader", errors.NoLeaderError, Outcome.NOT_APPLIED),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineError, Outcome.UNKNOWN),
        (Code.UNKNOWN, "something new", KvError, Outcome.UNKNOWN),
        (Code.UNKNOWN, "raft proposal dropped", KvError, Outcome.NOT_APPLIED),
        (
            Code.UNKNOWN,
            "etcdserver: too many requests",
            errors.TooManyRequestsError,
            Outcome.NOT_APPLIED,
        ),
        (Code.INTERNAL, "Exception deserializing response!", KvError, Outcome.APPLIED),
        (Code.INTERNAL, "Received RST_STREAM", KvError, Outcome.UNKNOWN),
        (Code.INVALID_ARGUMENT, "new", errors.InvalidRequestError, Outcome.NOT_APPLIED),
        (Code.UNIMPLEMENTED, "", errors.NotSupportedError, Outcome.NOT_APPLIED),
        (
            Code.OUT_OF_RANGE,
            "etcdserver: mvcc: required revision has been compacted",
            errors.CompactedError,
            Outcome.NOT_APPLIED,
        ),
    ],
)
def test_writes(code: Code, message: str, kind: type[KvError], outcome: Outcome) -> None:
    error = from_status(code, message, write=True, endpoint="e")
    assert type(error) is kind
    assert error.outcome is outcome
    assert error.outcome_known == (outcome is not Outcome.UNKNOWN)
    assert (error.code, error.message, error.endpoint) == (code, message, "e")
    # A read has no outcome that could be unknown.
    assert from_status(code, message, write=False).outcome is Outcome.NOT_APPLIED


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=str)
def test_every_catalogue_entry_survives_the_wire(entry: EtcdError) -> None:
    error = from_status(entry.code, entry.message, write=True)
    assert error == entry
    assert error.outcome_known == entry.outcome_known
    assert error.retryable == entry.retryable


def test_the_message_decides_when_the_code_is_another_releases() -> None:
    text = catalogue.NOT_SUPPORTED_FOR_LEARNER.message
    assert lookup(Code.UNAVAILABLE, text) is catalogue.NOT_SUPPORTED_FOR_LEARNER
    assert from_status(Code.UNAVAILABLE, text, write=True).outcome is Outcome.NOT_APPLIED


def test_lookup() -> None:
    long = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    assert lookup(Code.CANCELLED, long) is catalogue.PERMISSION_DENIED
    assert lookup(Code.OK, catalogue.COMPACTED.message) is None
    assert lookup(Code.UNKNOWN, "no such text") is None


def test_outcome_can_only_get_worse() -> None:
    error = from_status(Code.UNAVAILABLE, REFUSED, write=True)
    error.mark_unknown()
    assert error.outcome is Outcome.UNKNOWN
    assert not error.outcome_known
    assert "unknown" in repr(error)
