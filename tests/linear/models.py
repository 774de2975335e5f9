"""Sequential specifications for the search: the whole store, a register, a text map, a lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from tests.linear import model
from tests.linear.history import Compact, Operation, Outcome, Range, Response, Txn
from tests.linear.wgl import Item, item

JUDGED_ERRORS = (model.COMPACTED, model.FUTURE)


# ------------------------------------------------------------------------------ the whole store


def judged_error(op: Operation) -> bool:
    """Whether a refusal says something about the store's state that can be checked.

    Others (no leader, too large, a lease that lapsed unseen) say nothing, and are left out.
    """
    return (
        op.outcome is Outcome.REFUSED
        and isinstance(op.request, Range | Compact)
        and op.error in JUDGED_ERRORS
    )


def reads_only(request: object) -> bool:
    """Whether a request can change nothing whatever the state is."""
    if isinstance(request, Txn):
        return all(reads_only(one) for one in (*request.success, *request.failure))
    return isinstance(request, Range)


def may_be_stale(request: object) -> bool:
    """Whether the API allows an answer from the past: a serializable read, or a transaction of
    nothing but such reads."""
    if isinstance(request, Txn):
        branches = (*request.success, *request.failure)
        return all(isinstance(one, Range) and one.serializable for one in branches)
    return isinstance(request, Range) and request.serializable


class StoreModel:
    """An etcd store; answers carry revisions, so there is seldom more than one order to try."""

    def initial(self) -> model.Store:
        return model.empty()

    def step(self, state: model.Store, op: Operation) -> model.Store | None:
        after, answer = model.apply(state, op.request)
        if isinstance(answer, model.Refusal):
            return state if op.outcome is Outcome.REFUSED and answer.error == op.error else None
        if op.outcome is Outcome.UNKNOWN:
            return after if after != state else None
        if op.outcome is Outcome.OK and model.agrees(answer, op.response):
            return after
        return None

    def parts(self, history: Sequence[Operation]) -> list[list[Item]]:
        """One part: revisions tie all keys together."""
        births = _births(history)
        items: list[Item] = []
        for op in history:
            if op.outcome is Outcome.UNKNOWN:
                relevant = not reads_only(op.request)
            else:
                relevant = op.outcome is Outcome.OK or judged_error(op)
            if not relevant:
                continue
            if may_be_stale(op.request):
                items.append(Item(_earliest(op, births), op.ret, op))
            else:
                items.append(item(op))
        return [items]


def _births(history: Sequence[Operation]) -> dict[int, int]:
    """For each revision the first call of any answered write that could have made it."""
    births: dict[int, int] = {}
    for op in history:
        if op.outcome is Outcome.OK and not reads_only(op.request):
            revision = op.response.revision
            births[revision] = min(op.call, births.get(revision, op.call))
    return births


def _earliest(op: Operation, births: dict[int, int]) -> float:
    """From when on a read that may be stale can take effect: not before its revision was born.

    That is no extra demand, only a shorter search: any order has the read after that write.
    """
    if op.outcome is Outcome.OK and isinstance(op.response, Response):
        return min(op.call, births.get(op.response.revision, -inf))
    return -inf


# ---------------------------------------------------------------------------------- a register


@dataclass(frozen=True, slots=True)
class Read:
    """Answered with the value, None while nothing was written."""


@dataclass(frozen=True, slots=True)
class Write:
    value: int


@dataclass(frozen=True, slots=True)
class Cas:
    """Answered with whether the value was `old` and is now `new`."""

    old: int
    new: int


class RegisterModel:
    """One register. Its state is the value in a tuple, an empty one while nothing was written."""

    def initial(self) -> tuple[int, ...]:
        return ()

    def step(self, state: tuple[int, ...], op: Operation) -> tuple[int, ...] | None:
        match op.request:
            case Write(value):
                return (value,)
            case Cas(old, new):
                swaps = state == (old,)
                if op.outcome is Outcome.OK and op.response is not swaps:
                    return None
                return (new,) if swaps else state
        return state if op.response == (state[0] if state else None) else None

    def parts(self, history: Sequence[Operation]) -> list[list[Item]]:
        return [[item(op) for op in history if _tells(op, Read)]]


def _tells(op: Operation, reading: type) -> bool:
    """Whether an operation can have had an effect or holds an answer to explain."""
    if op.outcome is Outcome.UNKNOWN:
        return not isinstance(op.request, reading)
    return op.outcome is Outcome.OK


# ---------------------------------------------------------------------------------- a text map


@dataclass(frozen=True, slots=True)
class Get:
    """Answered with the key's text, empty if there is none."""

    key: str


@dataclass(frozen=True, slots=True)
class Set:
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Append:
    key: str
    value: str


class TextMapModel:
    """Texts under keys; every key is a part of its own."""

    def initial(self) -> str:
        return ""

    def step(self, state: str, op: Operation) -> str | None:
        match op.request:
            case Set(_, value):
                return value
            case Append(_, value):
                return state + value
        return state if op.response == state else None

    def parts(self, history: Sequence[Operation]) -> list[list[Item]]:
        groups: dict[str, list[Item]] = {}
        for op in history:
            if _tells(op, Get):
                groups.setdefault(op.request.key, []).append(item(op))
        return list(groups.values())


# -------------------------------------------------------------------------------------- a lock


@dataclass(frozen=True, slots=True)
class Acquire:
    """Answered with a fencing token, a number above every earlier one."""

    lock: str


@dataclass(frozen=True, slots=True)
class Release:
    lock: str


class LockModel:
    """Mutual exclusion with fencing tokens. The state is the holder (None: free) and the last
    token; every lock is a part of its own."""

    def initial(self) -> tuple[int | None, int]:
        return None, 0

    def step(self, state: tuple[int | None, int], op: Operation) -> tuple[int | None, int] | None:
        holder, last = state
        if isinstance(op.request, Release):
            return (None, last) if holder == op.client else None
        if holder is not None:
            return None
        if op.outcome is Outcome.UNKNOWN:
            return op.client, last  # the token that it took was never told
        return (op.client, op.response) if op.response > last else None

    def parts(self, history: Sequence[Operation]) -> list[list[Item]]:
        groups: dict[str, list[Item]] = {}
        for op in history:
            if op.outcome is not Outcome.REFUSED:
                groups.setdefault(op.request.lock, []).append(item(op))
        return list(groups.values())
