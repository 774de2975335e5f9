"""Makes legal concurrent histories: clients over virtual time, answered by the model.

A run is first planned: who asks what when, and when it takes effect. Carrying a plan out gives
the history, with the answers of the model, and the event log. The faults of `planted` carry out
the same plan on a store that does something wrong.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.linear import model
from tests.linear.history import (
    TO_THE_END,
    Compact,
    Compare,
    Delete,
    Event,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Outcome,
    Put,
    Range,
    Request,
    Txn,
)
from tests.linear.settle import SYSTEM
from tests.sim.prng import Prng


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of history: sizes, and chances in per mille."""

    clients: int = 5
    operations: int = 60
    keys: int = 4
    unknown: int = 50  # per mille of requests whose client never hears
    refused: int = 20  # per mille that are turned down for no reason of the store's
    expiring: int = 10  # per mille of steps at which a lease runs out
    pause_max: int = 20
    wait_max: int = 40  # both in units of virtual time


@dataclass(frozen=True, slots=True)
class Planned:
    """An operation without its answer, and how it takes effect."""

    op: Operation
    fate: Literal["done", "absent", "turned down"] = "done"
    lag: int = 0  # of a read that may be stale: how many changes of the store behind


@dataclass(frozen=True, slots=True)
class Recorded:
    history: list[Operation]
    witness: list[tuple[int, tuple[Event, ...]]]


@dataclass
class Plan:
    """Planned operations in the order in which they take effect."""

    order: list[Planned] = field(default_factory=list)

    def carry_out(self) -> Recorded:
        return carry_out(self.order)


Hook = Callable[[int, model.Store], model.Store]


def _unchanged(_: int, store: model.Store) -> model.Store:
    return store


def carry_out(
    order: Sequence[Planned], before: Hook = _unchanged, after: Hook = _unchanged
) -> Recorded:
    """The history and event log of a plan. The hooks may exchange the store before and after the
    operation at each position: that is how faults are made."""
    store = model.empty()
    past: list[model.Store] = []  # every state that the store was in
    history: list[Operation] = []
    for position, planned in enumerate(order):
        store = before(position, store)
        if not past or past[-1] != store:
            past.append(store)
        op = replace(planned.op)
        if planned.fate == "turned down":
            op.outcome, op.error = Outcome.REFUSED, "etcdserver: too many requests"
        elif planned.fate == "done" and planned.lag:
            _answer(op, past[-1 - min(planned.lag, len(past) - 1)])
        elif planned.fate == "done":
            store = _answer(op, store)
        store = after(position, store)
        if op.client != SYSTEM:
            history.append(op)
    history.sort(key=lambda one: one.call)
    return Recorded(history, model.log_of(store))


def _answer(op: Operation, store: model.Store) -> model.Store:
    """Applies an operation; fills in its answer unless its client never hears."""
    changed, answer = model.apply(store, op.request)
    if op.ret is not None:
        if isinstance(answer, model.Refusal):
            op.outcome, op.error = Outcome.REFUSED, answer.error
        else:
            op.outcome, op.response = Outcome.OK, answer
    return changed


def plan(prng: Prng, profile: Profile = Profile()) -> Plan:
    return _Planner(prng, profile).plan()


class _Planner:
    """Moves virtual time from one event to the next: a client calls, or a request takes effect."""

    def __init__(self, prng: Prng, profile: Profile) -> None:
        self.prng = prng
        self.profile = profile
        self.names = [b"k%d" % i for i in range(profile.keys)]
        self.store = model.empty()
        self.leases: list[int] = []
        self.serial = 0
        self.sequence = 0
        self.queue: list[tuple[int, int, int, Planned | None]] = []
        self.order: list[Planned] = []

    def plan(self) -> Plan:
        for client in range(self.profile.clients):
            self._push(self.prng.below(self.profile.pause_max), client, None)
        called = 0
        end = 0
        while self.queue:
            now, _, client, planned = heapq.heappop(self.queue)
            end = max(end, now)
            if planned is not None:
                self._take_effect(now, planned)
            elif called < self.profile.operations:
                called += 1
                end = max(end, self._call(now, client))
        # The last operation succeeds: it shows that the store is there, and what is in it.
        last = Operation(client=10**6, call=end + 1, request=Range(b"\0", TO_THE_END), ret=end + 2)
        self.order.append(Planned(last))
        return Plan(self.order)

    def _push(self, time: int, client: int, planned: Planned | None) -> None:
        self.sequence += 1
        heapq.heappush(self.queue, (time, self.sequence, client, planned))

    def _call(self, now: int, client: int) -> int:
        """A client's next request; returns when it stops waiting for it."""
        profile, prng = self.profile, self.prng
        ret = now + prng.between(0, profile.wait_max)
        effect = prng.between(now, ret)
        request = self._request()
        planned = Planned(Operation(client, now, request, ret), lag=self._lag(request))
        draw = prng.below(1000)
        if draw < profile.unknown:
            # It may take effect long after the client gave up; the client goes on as another.
            fate: Literal["done", "absent"] = "done" if prng.chance(1, 2) else "absent"
            planned = Planned(Operation(client, now, request), fate)
            effect = now + prng.below(10 * profile.wait_max)
            client += profile.clients
        elif draw < profile.unknown + profile.refused:
            planned = replace(planned, fate="turned down", lag=0)
        self._push(effect, client, planned)
        self._push(ret + 1 + prng.below(profile.pause_max), client, None)
        return ret

    def _lag(self, request: Request) -> int:
        stale = isinstance(request, Range) and request.serializable
        return self.prng.below(4) if stale else 0

    def _take_effect(self, now: int, planned: Planned) -> None:
        self._run(planned)
        if self.leases and self.prng.below(1000) < self.profile.expiring:
            lease_id = self.prng.pick(self.leases)
            held = model.attached(self.store.head.keys, lease_id)
            if held and lease_id in self.store.leases:
                self._run(Planned(Operation(SYSTEM, now, LeaseRevoke(lease_id), now)))

    def _run(self, planned: Planned) -> None:
        self.order.append(planned)
        if planned.fate == "done" and not planned.lag:
            self.store, _ = model.apply(self.store, planned.op.request)

    # ------------------------------------------------------------------------------- requests

    def _request(self) -> Request:
        """One request, with what its client may have learned of the store's present state."""
        choices: list[tuple[int, Callable[[], Request]]] = [
            (30, self._put),
            (25, self._range),
            (8, self._delete),
            (20, self._txn),
            (4, self._read_past),
            (2, self._compact),
            (4, self._grant),
            (2, self._revoke),
        ]
        return self.prng.weighted(choices)()

    def _put(self) -> Put:
        self.serial += 1
        lease = self.prng.pick(self.leases) if self.leases and self.prng.chance(1, 4) else 0
        return Put(self.prng.pick(self.names), b"v%d" % self.serial, lease)

    def _span(self) -> tuple[bytes, bytes | None]:
        if self.prng.chance(2, 3):
            return self.prng.pick(self.names), None
        first = self.prng.pick(self.names)
        return first, (TO_THE_END if self.prng.chance(1, 2) else self.prng.pick(self.names))

    def _range(self) -> Range:
        key, end = self._span()
        return Range(
            key,
            end,
            serializable=self.prng.chance(1, 5),
            limit=self.prng.pick([0, 0, 0, 1, 2]),
            count_only=self.prng.chance(1, 10),
        )

    def _delete(self) -> Delete:
        return Delete(*self._span())

    def _read_past(self) -> Range:
        revision = max(1, self.store.revision + self.prng.between(-8, 2))
        return replace(self._range(), revision=revision)

    def _compact(self) -> Compact:
        return Compact(max(1, self.store.revision + self.prng.between(-6, 1)))

    def _grant(self) -> LeaseGrant:
        self.leases.append(1000 + len(self.leases))
        return LeaseGrant(self.leases[-1], 5)

    def _revoke(self) -> LeaseRevoke:
        return LeaseRevoke(self.prng.pick(self.leases) if self.leases else 7)

    def _compare(self) -> Compare:
        key = self.prng.pick(self.names)
        kv = self.store.head.keys.get(key)
        if kv is None:
            return Compare(key, "create", "=", 0)
        if self.prng.chance(1, 3):
            return Compare(key, "value", self.prng.pick(["=", "!=", "<"]), kv.value)
        if self.prng.chance(1, 3):
            return Compare(key, "version", ">", kv.version - 1)
        return Compare(key, "mod", "=", kv.mod)

    def _txn(self, depth: int = 0) -> Txn:
        compares = tuple(self._compare() for _ in range(self.prng.below(3)))
        return Txn(compares, self._branch(depth), self._branch(depth))

    def _branch(self, depth: int) -> tuple[Put | Range | Delete | Txn, ...]:
        """Operations on keys of their own, as the API asks; ranges only read."""
        branch: list[Put | Range | Delete | Txn] = []
        for key in self.prng.shuffled(self.names)[: self.prng.below(3)]:
            draw = self.prng.below(8)
            if draw < 4:
                branch.append(replace(self._put(), key=key))
            elif draw < 5:
                branch.append(Delete(key))
            else:
                branch.append(replace(self._range(), serializable=False))
        if depth == 0 and self.prng.chance(1, 10):
            # Its writes must not meet those of this branch: only a nested reader is drawn.
            branch.append(Txn((self._compare(),), (self._range(),), (self._range(),)))
        return tuple(branch)
