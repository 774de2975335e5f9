"""What the registry answers instead: whose fault it is, and what to do."""

from __future__ import annotations

from kvstore.errors import TOO_MANY_REQUESTS, Code, EtcdError
from kvstore.registry.names import InstanceName

__all__ = (
    "BATCH_REFUSED",
    "CONTENDED",
    "NO_CHECKERS",
    "behind",
    "invalid",
    "no_instance",
    "no_namespace",
    "not_written",
)

CONTENDED = EtcdError(
    Code.ABORTED,
    "registry: somebody else changes the same at the same time; nothing was changed, try again",
)
NO_CHECKERS = EtcdError(
    Code.FAILED_PRECONDITION,
    "registry: the instance has checks, but no member runs any; start members with "
    "--enable-agentless-checks, or let an agent check it",
)
BATCH_REFUSED = EtcdError(
    Code.ABORTED, "registry: the change was refused by the store; nothing was changed, try again"
)


def behind(revision: int, after: int) -> EtcdError:
    """A watcher that goes on was told more elsewhere, and this member does not get it."""
    return EtcdError(
        Code.UNAVAILABLE,
        f"registry: this member knows the services up to revision {revision} only and does not "
        f"reach the cluster, and you were told up to {after}; watch at another member, or go on "
        "with what you know and try again",
    )


def invalid(sentence: str) -> EtcdError:
    """The request is not as it must be."""
    return EtcdError(Code.INVALID_ARGUMENT, f"registry: {sentence}")


def no_namespace(namespace: str) -> EtcdError:
    """A namespace that nobody has made."""
    return EtcdError(
        Code.NOT_FOUND,
        f"registry: there is no namespace {namespace!r}; make it first (CreateNamespace, or put "
        f"the key /kvstore/namespaces/{namespace})",
    )


def no_instance(name: InstanceName) -> EtcdError:
    """An instance that is not registered."""
    return EtcdError(Code.NOT_FOUND, f"registry: no instance {name} is registered")


def not_written(error: EtcdError) -> EtcdError:
    """Why a change was not made, for people; without a leader or a quorum it says so."""
    if error == TOO_MANY_REQUESTS:
        return EtcdError(
            Code.RESOURCE_EXHAUSTED,
            "registry: this member has too many requests under way; try again a little later",
        )
    if error.code is not Code.UNAVAILABLE:
        return error
    known = "" if error.outcome_known else "; whether the change was made is not known"
    return EtcdError(
        Code.UNAVAILABLE,
        "registry: changes need a leader and a quorum, which this member does not reach at the "
        f"moment ({error.message}){known}; it still answers readings",
        outcome_known=error.outcome_known,
    )
