"""Decides unknown outcomes from the complete event log, and finds what the system did by itself.

A write whose client heard nothing either made one of the revisions that no answered write claims,
or it never happened. With that known a history needs no guessing: both checkers stay fast, and
an effect that nobody asked for shows as a revision that nobody made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf

from tests.linear import model
from tests.linear.history import (
    KV,
    Compact,
    Event,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Request,
    Txn,
    Witness,
)
from tests.linear.models import reads_only
from tests.linear.revision_check import writes

SYSTEM = -1  # the client of what no client asked for: the expiry of leases


def settle(history: Sequence[Operation], witness: Witness) -> list[Operation]:
    """The history with unknown writes done at their revision, or absent; the input stays as it is.

    A settled write is answered as the model says it would have been, and returns by the time
    that somebody knew of its revision. Compactions and grants leave no trace in the log and stay
    unknown; a revocation without a trace had no keys to delete and counts as absent. Expiries of
    leases with keys are added as revocations by `SYSTEM`.
    """
    return _Settling(history, witness).run()


class _Settling:
    def __init__(self, history: Sequence[Operation], witness: Witness) -> None:
        self.history = history
        self.witness = witness
        unknown = [op for op in history if op.outcome is Outcome.UNKNOWN]
        unknown = [op for op in unknown if not reads_only(op.request)]
        unknown.sort(key=lambda op: op.call)
        self.traceless = [op for op in unknown if isinstance(op.request, Compact | LeaseGrant)]
        self.open = [op for op in unknown if not isinstance(op.request, Compact | LeaseGrant)]
        self.claimed = _claimed(history)
        self.revocations: dict[int, list[Operation]] = {}
        for op in history:
            if op.outcome is Outcome.OK and isinstance(op.request, LeaseRevoke):
                self.revocations.setdefault(op.response.revision, []).append(op)
        self.latest = _latest_returns(history)
        self.earliest = _earliest_calls(history)
        self.last_use = self._last_uses_of_leases()
        self.before: dict[int, model.Store] = {}
        """The store before each revision that has to be explained."""
        self.candidates: dict[int, list[int]] = {}
        """For each of them positions in `open`."""
        self.author: dict[int, int] = {}
        """Position in `open` → the revision that it made."""
        self.system: dict[int, Operation] = {}
        """Expiries that nobody asked for."""

    def run(self) -> list[Operation]:
        for revision, state, events, after in self._unclaimed():
            self._find_candidates(revision, state, events, after)
        for revision in self.candidates:
            self._assign(revision, set())
        done = [self._answered(op, revision) for revision, op in self.system.items()]
        done += [self._answered(self.open[at], revision) for at, revision in self.author.items()]
        kept = [op for op in self.history if op.outcome is not Outcome.UNKNOWN]
        return [*kept, *done, *self.traceless]

    def _unclaimed(self) -> Iterator[tuple[int, model.Store, Sequence[Event], model.Store]]:
        """The revisions that no answered request made, with the store before and after."""
        requests = [op.request for op in self.history]
        leases = frozenset(one.lease_id for one in requests if isinstance(one, LeaseGrant))
        state = model.empty()._replace(leases=leases | frozenset(self.last_use))
        for revision, events in self.witness:
            if state.revision != revision - 1:
                return  # the log has a hole, which its own check reports
            after = _advanced(state, events)
            if revision not in self.claimed and not self._revoked_by_answer(revision, after, state):
                yield revision, state, events, after
            state = after

    def _revoked_by_answer(self, revision: int, after: model.Store, state: model.Store) -> bool:
        """Whether a revocation that was answered did this.

        Its answer names the revision also if there was nothing left to delete: one that was
        called when the revision was known already has not made it.
        """
        return any(
            op.call < self.latest[revision] and _effect(state, op.request) == after.head.changes
            for op in self.revocations.get(revision, ())
        )

    def _find_candidates(
        self, revision: int, state: model.Store, events: Sequence[Event], after: model.Store
    ) -> None:
        """Notes who can have made this revision, the likeliest first.

        Revocations and expiries come first: a lease that ends can do only this, while an unknown
        delete may be needed for another revision. Of the others the one that was called last:
        whoever was called in time for this revision is so for every later one, and the shorter
        the span of an operation, the less the search has to try.
        """
        self.before[revision] = state
        deadline = self._deadline(revision)
        in_time = [at for at, op in enumerate(self.open) if op.call <= deadline][::-1]
        lease_id = _expired(events, state)
        if lease_id is not None and self.last_use[lease_id] < revision:
            revocation = LeaseRevoke(lease_id)
            self.candidates[revision] = [
                at for at in in_time if self.open[at].request == revocation
            ]
            if not self.candidates[revision]:
                self.system[revision] = Operation(SYSTEM, self._birth(revision), revocation)
            return
        self.candidates[revision] = [
            at
            for at in in_time
            if _may_write(self.open[at].request, events)
            and not self._ends_a_living_lease(self.open[at].request, revision)
            and _effect(state, self.open[at].request) == after.head.changes
        ]

    def _ends_a_living_lease(self, request: Request, revision: int) -> bool:
        """Whether this revokes a lease that is seen alive at the revision or later."""
        return (
            isinstance(request, LeaseRevoke) and self.last_use.get(request.lease_id, 0) >= revision
        )

    def _assign(self, revision: int, tried: set[int]) -> bool:
        """Finds an author, if need be by giving another revision another one (an augmenting path:
        two deletes of a key look the same, and only one of them may be the sole candidate
        elsewhere)."""
        for at in self.candidates[revision]:
            if at not in self.author:
                self.author[at] = revision
                return True
        for at in self.candidates[revision]:
            if at not in tried:
                tried.add(at)
                if self._assign(self.author[at], tried):
                    self.author[at] = revision
                    return True
        return False

    def _answered(self, op: Operation, revision: int) -> Operation:
        _, answer = model.apply(self.before[revision], op.request)
        deadline = self._deadline(revision)
        ret = None if deadline == inf else int(deadline)
        return replace(op, outcome=Outcome.OK, response=answer, ret=ret)

    def _last_uses_of_leases(self) -> dict[int, int]:
        """For each lease the last revision at which it surely lived: a key was attached to it, or
        a client ended it."""
        last = {
            event.kv.lease: revision
            for revision, events in self.witness
            for event in events
            if event.kind == "put" and event.kv.lease
        }
        for revision, ops in self.revocations.items():
            for op in ops:
                lease_id = op.request.lease_id
                last[lease_id] = max(revision, last.get(lease_id, 0))
        return last

    def _deadline(self, revision: int) -> float:
        """When somebody knew of this revision at the latest: by then it had been made."""
        return self.latest[min(revision, len(self.latest) - 1)]

    def _birth(self, revision: int) -> int:
        """When the revision can have been made at the earliest: what made the ones before it had
        been called."""
        return self.earliest[min(revision, len(self.earliest)) - 1]


def _claimed(history: Sequence[Operation]) -> frozenset[int]:
    return frozenset(
        op.response.revision
        for op in history
        if op.outcome is Outcome.OK and writes(op.request, op.response)
    )


def _latest_returns(history: Sequence[Operation]) -> list[float]:
    """By revision: the first return of an answer that holds this revision or a later one."""
    answered = [op for op in history if op.outcome is Outcome.OK and op.ret is not None]
    last = max((op.response.revision for op in answered), default=1)
    latest = [inf] * (last + 2)
    for op in answered:
        assert op.ret is not None
        latest[op.response.revision] = min(latest[op.response.revision], op.ret)
    for revision in range(last, -1, -1):
        latest[revision] = min(latest[revision], latest[revision + 1])
    return latest


def _earliest_calls(history: Sequence[Operation]) -> list[int]:
    """By revision: the last call of an answered write that made this revision or an earlier one;
    the first call of all where there is none."""
    first = min((op.call for op in history), default=0)
    answered = [op for op in history if op.outcome is Outcome.OK]
    last = max((op.response.revision for op in answered), default=1)
    earliest = [first] * (last + 1)
    for op in answered:
        if writes(op.request, op.response):
            revision = op.response.revision
            earliest[revision] = max(earliest[revision], op.call)
    for revision in range(1, last + 1):
        earliest[revision] = max(earliest[revision], earliest[revision - 1])
    return earliest


def _advanced(state: model.Store, events: Sequence[Event]) -> model.Store:
    """The store after these events, by what they say."""
    keys: dict[bytes, KV] = dict(state.head.keys)
    for event in events:
        if event.kind == "put":
            keys[event.kv.key] = event.kv
        else:
            keys.pop(event.kv.key, None)
    return state._replace(head=state.head.then(tuple(event.kv for event in events), keys))


def _effect(state: model.Store, request: Request) -> tuple[KV, ...]:
    """What the request would write in this state."""
    after, _ = model.apply(state, request)
    return after.head.changes if after.head is not state.head else ()


def _may_write(request: Request, events: Sequence[Event]) -> bool:
    """A quick no for most candidates: a put makes one event, of its own key and value."""
    if not isinstance(request, Put):
        return isinstance(request, Txn) or all(event.kind == "delete" for event in events)
    kv = events[0].kv
    return len(events) == 1 and (kv.key, kv.value) == (request.key, request.value)


def _expired(events: Sequence[Event], state: model.Store) -> int | None:
    """The lease whose end these events look like: the deletion of exactly its keys, in order."""
    if any(event.kind == "put" for event in events):
        return None
    names = [event.kv.key for event in events]
    held = state.head.keys.get(names[0])
    if held is None or not held.lease or model.attached(state.head.keys, held.lease) != names:
        return None
    return held.lease
