"""Reading a process's store the way a client would, but at once and past the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvstore.errors import EtcdError, detach
from kvstore.machine.jobs import run
from kvstore.pb.rpc_pb2 import RangeRequest, RangeResponse
from tests.linear.history import KV
from tests.sim.books.inside import is_readable

if TYPE_CHECKING:
    from tests.sim.process import Process

__all__ = ("kv_hash", "pairs_at", "refusal_at", "running", "state_hash")


def running(processes: Any) -> list[Process]:
    """Those of the world's processes that have a state to look at now."""
    return [p for p in processes.values() if is_readable(p)]


def _all_at(p: Process, revision: int) -> RangeResponse:
    with p.machine.view() as view:
        answer = run(
            view.range(RangeRequest(key=b"\0", range_end=b"\0", revision=max(revision, 0)))
        )
        return RangeResponse.FromString(answer.body)


def pairs_at(p: Process, revision: int) -> dict[bytes, KV]:
    """Every pair at a revision; raises EtcdError for one that cannot be read."""
    return {
        kv.key: KV(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
        for kv in _all_at(p, revision).kvs
    }


def refusal_at(p: Process, revision: int) -> EtcdError | None:
    """Why a revision cannot be read; None if it can."""
    try:
        _all_at(p, revision)
    except EtcdError as error:
        detach(error)
        return error
    return None


def state_hash(p: Process) -> int:
    """The hash of everything applied (product's function; equal states have equal ones)."""
    with p.machine.view() as view:
        return run(view.hash())


def kv_hash(p: Process, revision: int = 0) -> tuple[int, int, int]:
    """(hash, compact revision, revision) of the history, as members compare it."""
    with p.machine.view() as view:
        answer = run(view.hash_kv(revision))
        return answer.hash, answer.compact_revision, answer.hash_revision
