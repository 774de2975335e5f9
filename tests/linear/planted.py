"""Wrong histories on purpose: a legal plan carried out with one mistake.

Six kinds, each a bug that stores have had. A mistake that happens to leave a legal history (a
lost write that nobody looked at) is no mistake: `plant` tries places until the two differ in a
way that a client could see, and says None if this plan has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.linear import model
from tests.linear.generate import Hook, Plan, Planned, Recorded, carry_out
from tests.linear.history import Delete, Operation, Outcome, Put, Range, Response, Txn
from tests.sim.prng import Prng

__all__ = ("KINDS", "plant")

Planter = Callable[[Plan, Prng], Iterator[Recorded]]


def _writes(planned: Planned) -> bool:
    return planned.fate == "done" and isinstance(planned.op.request, Put | Delete | Txn)


def _places(plan: Plan, prng: Prng, wanted: Callable[[Planned], bool]) -> list[int]:
    """Positions of such operations, in an order of chance; never the last, which settles things."""
    found = [at for at, planned in enumerate(plan.order[:-1]) if wanted(planned)]
    return prng.shuffled(found)


def stale_read(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A linearizable read is answered from a state that was over before it was called."""

    def reads(planned: Planned) -> bool:
        request = planned.op.request
        return (
            planned.fate == "done"
            and isinstance(request, Range)
            and not (request.serializable or request.revision)
            and planned.op.ret is not None
        )

    for at in _places(plan, prng, reads):
        order = list(plan.order)
        order[at] = replace(order[at], lag=prng.between(3, 8))
        before = [op for op in carry_out(order[:at]).history if op.ret is not None]
        recorded = carry_out(order)
        read = next(
            op
            for op in recorded.history
            if op.call == order[at].op.call and op.client == order[at].op.client
        )
        if read.response is None:
            continue
        shown = [
            op
            for op in before
            if op.outcome is Outcome.OK
            and op.ret is not None
            and op.ret < read.call
            and op.response.revision > read.response.revision
        ]
        if shown:
            yield recorded


def lost_write(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """An acknowledged write is gone, and its revision is given to the next one."""
    for at in _places(plan, prng, lambda each: _writes(each) and each.op.ret is not None):
        recorded = carry_out(plan.order, *_forgetting(at))
        if _answered(plan, recorded, at):
            yield recorded


def _forgetting(at: int) -> tuple[Hook, Hook]:
    """The hooks that undo the operation at this position as soon as it is answered."""
    kept: list[model.Store] = []

    def before(position: int, store: model.Store) -> model.Store:
        if position == at:
            kept.append(store)
        return store

    def after(position: int, store: model.Store) -> model.Store:
        return kept[-1] if position == at else store

    return before, after


def _answered(plan: Plan, recorded: Recorded, at: int) -> bool:
    """Whether the write at this position was acknowledged as one that changed something."""
    planned = plan.order[at].op
    for op in recorded.history:
        if (op.client, op.call) == (planned.client, planned.call):
            return op.outcome is Outcome.OK and _wrote(op)
    return False


def _wrote(op: Operation) -> bool:
    response: Response = op.response
    if isinstance(op.request, Put):
        return True
    if isinstance(op.request, Delete):
        return response.deleted > 0
    branch = op.request.success if response.succeeded else op.request.failure
    return any(isinstance(one, Put) for one in branch)


def double_apply(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A put takes effect twice."""
    for at in _places(plan, prng, lambda each: _writes(each) and isinstance(each.op.request, Put)):
        request = plan.order[at].op.request

        def after(
            position: int, store: model.Store, at: int = at, request: Put = request
        ) -> model.Store:
            return model.apply(store, request)[0] if position == at else store

        recorded = carry_out(plan.order, after=after)
        twin = [op for op in recorded.history if op.request == request]
        # With an unknown twin the second effect could be its own.
        if len(twin) == 1 and twin[0].outcome is Outcome.OK:
            yield recorded


def swapped_order(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """Of two writes the one that was called after the other's answer comes first."""
    places = _places(plan, prng, lambda each: _writes(each) and each.op.ret is not None)
    for at in places:
        first = plan.order[at].op
        for later in range(at + 1, len(plan.order) - 1):
            second = plan.order[later]
            if not _writes(second) or second.op.ret is None or second.op.call <= (first.ret or 0):
                continue
            order = list(plan.order)
            order.insert(at, order.pop(later))
            recorded = carry_out(order)
            done = {(op.client, op.call): op for op in recorded.history}
            pair = [done[one.client, one.call] for one in (first, second.op)]
            if all(op.outcome is Outcome.OK and _wrote(op) for op in pair):
                yield recorded
            break


def revision_gap(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A revision is passed over: everything from some write on is one higher."""
    for at in _places(plan, prng, lambda each: _writes(each) and each.op.ret is not None):
        recorded = carry_out(plan.order)
        if not _answered(plan, recorded, at):
            continue
        planned = plan.order[at].op
        write = next(
            op for op in recorded.history if (op.client, op.call) == (planned.client, planned.call)
        )
        gap = write.response.revision
        history = [_raised(op, gap) for op in recorded.history]
        log = [
            (
                revision + (revision >= gap),
                tuple(
                    replace(event, kv=_raised_pair(event.kv, gap), prev=None) for event in events
                ),
            )
            for revision, events in recorded.witness
        ]
        yield Recorded(history, log)


def _raised_pair(kv: model.KV, gap: int) -> model.KV:
    return replace(kv, create=kv.create + (kv.create >= gap), mod=kv.mod + (kv.mod >= gap))


def _raised_answer(answer: Response, gap: int) -> Response:
    return replace(
        answer,
        revision=answer.revision + (answer.revision >= gap),
        kvs=tuple(_raised_pair(kv, gap) for kv in answer.kvs),
        parts=tuple(_raised_answer(part, gap) for part in answer.parts),
    )


def _raised(op: Operation, gap: int) -> Operation:
    if not isinstance(op.response, Response):
        return op
    return replace(op, response=_raised_answer(op.response, gap))


def phantom(plan: Plan, prng: Prng) -> Iterator[Recorded]:
    """A read shows a value that nobody wrote."""
    recorded = carry_out(plan.order)
    answers = [
        at
        for at, op in enumerate(recorded.history)
        if isinstance(op.request, Range) and op.outcome is Outcome.OK and op.response.kvs
    ]
    for at in prng.shuffled(answers):
        op = recorded.history[at]
        kvs = list(op.response.kvs)
        chosen = prng.below(len(kvs))
        kvs[chosen] = replace(kvs[chosen], value=b"nobody's")
        history = list(recorded.history)
        history[at] = replace(op, response=replace(op.response, kvs=tuple(kvs)))
        yield Recorded(history, recorded.witness)


KINDS: dict[str, Planter] = {
    "stale read": stale_read,
    "lost write": lost_write,
    "double apply": double_apply,
    "swapped order": swapped_order,
    "revision gap": revision_gap,
    "phantom": phantom,
}


def plant(kind: str, plan: Plan, prng: Prng) -> Recorded | None:
    """The plan's history with one such fault, if the plan has a place where it shows."""
    return next(KINDS[kind](plan, prng), None)
