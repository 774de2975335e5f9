"""Plants one fault in a legal run, of six kinds, such that the history is certainly illegal.

Each planter carries out the plan of a legal run on a store that does one thing wrong, or changes
one answer, and then proves by a simple argument (given with it) that no order can explain what the
clients were told. A place where the proof fails is left, and another one tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.linear import model
from tests.linear.generate import Plan, Planned, Recorded, carry_out
from tests.linear.history import Delete, Operation, Outcome, Put, Range, Response, Txn
from tests.linear.models import may_be_stale
from tests.linear.revision_check import writes
from tests.sim.prng import Prng

Planter = Callable[[Plan, Prng], Iterator[Recorded]]


def plant(kind: str, plan: Plan, prng: Prng) -> Recorded:
    """The run with one fault of this kind. Raises LookupError if the run has no place for it."""
    found = next(PLANTERS[kind](plan, prng), None)
    if found is None:
        raise LookupError(f"no place for a {kind} in this run")
    return found


def _ok(op: Operation) -> bool:
    return op.outcome is Outcome.OK


def _writer(op: Operation) -> bool:
    return _ok(op) and writes(op.request, op.response)


def _positions(plan: Plan, prng: Prng, wanted: Callable[[Planned], bool]) -> list[int]:
    """Where in the order such operations stand that their clients hear of, in random order."""
    fitting = [
        position
        for position, planned in enumerate(plan.order)
        if planned.fate == "done" and planned.op.ret is not None and wanted(planned)
    ]
    return prng.shuffled(fitting)


def _of(recorded: Recorded, planned: Planned) -> Operation:
    """The record of a planned operation; its client had one in flight, so the call tells it."""
    wanted = (planned.op.client, planned.op.call)
    return next(op for op in recorded.history if (op.client, op.call) == wanted)


def _is_put(planned: Planned) -> bool:
    return isinstance(planned.op.request, Put)


def _may_write(planned: Planned) -> bool:
    return isinstance(planned.op.request, Put | Delete | Txn)


def stale_read(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A linearizable read answers from an old state.

    Either as that state would, header and all: illegal because somebody had been told of a later
    revision before the read was called. Or with the old pairs under the present header: illegal
    because the pairs at that revision are others.
    """
    legal = plan.carry_out()
    states = _states(plan)
    for position in _positions(plan, prng, lambda one: isinstance(one.op.request, Range)):
        op = _of(legal, plan.order[position])
        if not _ok(op) or may_be_stale(op.request) or op.request.revision:
            continue
        now = op.response.revision
        for back in prng.shuffled(range(1, min(now, 6))):
            _, old = model.apply(states[now - back], op.request)
            assert isinstance(old, Response)
            if prng.chance(1, 2):
                if any(_told_before(one, op, old.revision) for one in legal.history):
                    yield _with_answer(legal, op, old)
            elif (old.kvs, old.count) != (op.response.kvs, op.response.count):
                yield _with_answer(legal, op, replace(old, revision=now))


def _told_before(one: Operation, op: Operation, revision: int) -> bool:
    return (
        _ok(one)
        and one.ret is not None
        and one.ret < op.call
        and (one.response.revision > revision)
    )


def _states(plan: Plan) -> dict[int, model.Store]:
    """The last state of each revision in the legal run."""
    states = {1: model.empty()}

    def keep(_: int, store: model.Store) -> model.Store:
        states[store.revision] = store
        return store

    carry_out(plan.order, after=keep)
    return {revision: store._replace(compacted=-1) for revision, store in states.items()}


def _with_answer(recorded: Recorded, op: Operation, answer: Response) -> Recorded:
    changed = replace(op, response=answer)
    return Recorded([changed if one is op else one for one in recorded.history], recorded.witness)


def lost_write(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """An acknowledged write is forgotten at once.

    Illegal because the next write is acknowledged with the same revision.
    """
    for position in _positions(plan, prng, _may_write):
        kept: list[model.Store] = []

        def before(at: int, store: model.Store, position: int = position) -> model.Store:
            if at == position:
                kept.append(store)  # noqa: B023 — used within this turn of the loop
            return store

        def after(at: int, store: model.Store, position: int = position) -> model.Store:
            return kept[-1] if at == position else store  # noqa: B023 — as above

        recorded = carry_out(plan.order, before, after)
        lost = _of(recorded, plan.order[position])
        if _writer(lost) and any(
            op is not lost and _writer(op) and op.response.revision == lost.response.revision
            for op in recorded.history
        ):
            yield recorded


def double_apply(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A put takes effect a second time, some operations later, as a careless retry would do it.

    Illegal because its second revision is nobody's, and somebody saw it or a later one.
    """
    for position in _positions(plan, prng, _is_put):
        again = position + prng.below(8)
        made: list[int] = []

        def after(
            at: int, store: model.Store, position: int = position, again: int = again
        ) -> model.Store:
            if at != again:
                return store
            store, answer = model.apply(store, plan.order[position].op.request)
            if isinstance(answer, Response):
                made.append(answer.revision)  # noqa: B023 — used within this turn of the loop
            return store

        recorded = carry_out(plan.order, after=after)
        if not made or not _ok(_of(recorded, plan.order[position])):
            continue
        if any(_ok(op) and op.response.revision >= made[0] for op in recorded.history):
            yield recorded


def swapped_order(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """Of two writes the second was called after the first had returned, but goes before it.

    Illegal by their revisions and times alone.
    """
    for later in _positions(plan, prng, _may_write):
        second = plan.order[later].op
        for earlier in range(later - 1, -1, -1):
            planned = plan.order[earlier]
            ret = planned.op.ret
            if (
                not _may_write(planned)
                or planned.fate != "done"
                or ret is None
                or ret >= second.call
            ):
                continue
            order = [*plan.order]
            order.insert(earlier, order.pop(later))
            recorded = carry_out(order)
            ops = [_of(recorded, plan.order[earlier]), _of(recorded, plan.order[later])]
            if all(map(_writer, ops)) and ops[1].response.revision < ops[0].response.revision:
                yield recorded


def revision_gap(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """The store skips a revision before a write.

    Illegal because a write was told its revision, and nobody made the one before.
    """
    for position in _positions(plan, prng, _may_write):

        def before(at: int, store: model.Store, position: int = position) -> model.Store:
            if at != position:
                return store
            return store._replace(head=store.head.then((), store.head.keys))

        recorded = carry_out(plan.order, before)
        if _writer(_of(recorded, plan.order[position])):
            yield recorded


def phantom(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A read shows a value that nobody ever wrote.

    Illegal because of that.
    """
    legal = plan.carry_out()
    for position in _positions(plan, prng, lambda one: isinstance(one.op.request, Range)):
        op = _of(legal, plan.order[position])
        if _ok(op) and op.response.kvs:
            kvs = list(op.response.kvs)
            place = prng.below(len(kvs))
            kvs[place] = replace(kvs[place], value=b"never written")
            yield _with_answer(legal, op, replace(op.response, kvs=tuple(kvs)))


PLANTERS: dict[str, Planter] = {
    "stale read": stale_read,
    "lost write": lost_write,
    "double apply": double_apply,
    "swapped order": swapped_order,
    "revision gap": revision_gap,
    "phantom": phantom,
}
