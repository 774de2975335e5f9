"""Searches for an order that explains a history: Wing and Gong's search with Lowe's memo.

The history is linearizable if its operations can be put in one order such that each lies between
its call and its return, and a model answers each as it was answered. The search takes any operation
whose call precedes every outstanding return, tries it on the model, and goes on; when nothing fits
it takes the last choice back. Positions that were reached before are not searched twice: a position
is the set of operations placed and the model's state.

Operations of unknown outcome may be placed anywhere after their call, or not at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tests.linear.finding import LEGAL, Finding, Verdict, illegal
from tests.linear.history import Operation, Outcome

STATES_MAX = 500_000
CONTEXT = 5  # placed operations shown before the one that does not fit

State = TypeVar("State", bound=Hashable)


class Item(NamedTuple):
    """An operation and when it may take effect: from `call` to `ret`, None meaning any later time.

    Usually the operation's own times; a model widens them where it promises less.
    """

    call: float
    ret: float | None
    op: Operation


class _Deepest(NamedTuple):
    """How far the search came: the last operations placed, and the one that had no place."""

    placed: int
    required: int
    last: tuple[int, ...]
    stuck: int


def item(op: Operation) -> Item:
    return Item(op.call, op.ret, op)


class Model(Protocol[State]):
    """A sequential specification."""

    def initial(self) -> State: ...

    def step(self, state: State, op: Operation) -> State | None:
        """The state after the operation, or None if it could not have been answered so there.

        For an operation of unknown outcome None means that here it would change nothing.
        """
        ...

    def parts(self, history: Sequence[Operation]) -> list[list[Item]]:
        """The operations that say anything, split into groups that do not bear on each other."""
        ...


def check(model: Model[Any], history: Sequence[Operation], states_max: int = STATES_MAX) -> Finding:
    """Judges a history. The first illegal part decides; else any part that was not decided."""
    undecided: Finding | None = None
    for part in model.parts(history):
        finding = _Search(model, part, states_max).run()
        if finding.verdict is Verdict.ILLEGAL:
            return finding
        if finding.verdict is Verdict.INCONCLUSIVE:
            undecided = finding
    return undecided or LEGAL


class _Placed(NamedTuple):
    """A choice made, with what is needed to take it back."""

    item: int
    state: Any
    low: int
    done: int
    maybe: int


class _Search:
    """One search. Calls and returns form a linked list in the order of time; the node of call `i`
    is 2i + 1, of its return 2i + 2, and node 0 is the head. Operations that were placed are taken
    out of the list.

    The set of placed operations is kept as two numbers: `low`, the count of leading operations that
    are all placed, and `done`, a bit mask of those after them. Masks stay short in long histories.
    Operations that need not happen have a mask of their own, `maybe`.
    """

    def __init__(self, model: Model[Any], items: Sequence[Item], states_max: int) -> None:
        self.model = model
        self.states_max = states_max
        must = sorted((one for one in items if not _optional(one)), key=lambda one: one.call)
        may = sorted((one for one in items if _optional(one)), key=lambda one: one.call)
        self.items = must + may
        self.must = len(must)
        self.next = [0] * (2 * len(self.items) + 1)
        self.previous = [0] * (2 * len(self.items) + 1)
        self._link()
        self.placed: list[_Placed] = []
        self.deepest: _Deepest | None = None

    def _link(self) -> None:
        times: list[tuple[float, int, int]] = []
        for i, one in enumerate(self.items):
            times.append((one.call, 0, 2 * i + 1))
            if one.ret is not None and i < self.must:
                times.append((one.ret, 1, 2 * i + 2))
        times.sort()
        last = 0
        for _, _, node in times:
            self.next[last] = node
            self.previous[node] = last
            last = node
        self.next[last] = 0

    def run(self) -> Finding:
        state = self.model.initial()
        low = done = maybe = 0
        seen: set[tuple[int, int, int, Hashable]] = {(0, 0, 0, state)}
        node = self.next[0]
        left = self.must
        while left:
            if node & 1:
                index = node >> 1
                after = self.model.step(state, self.items[index].op)
                if after is not None:
                    position = (*self._with(index, low, done, maybe), after)
                    if position not in seen:
                        seen.add(position)
                        if len(seen) > self.states_max:
                            return self._undecided(len(seen))
                        self.placed.append(_Placed(index, state, low, done, maybe))
                        low, done, maybe, state = position
                        self._take_out(index)
                        left -= index < self.must
                        node = self.next[0]
                        continue
                node = self.next[node]
                continue
            # A return, or the list's end: something before this had to be placed, and could not.
            self._remember(node, self.must - left)
            if not self.placed:
                return self._explain()
            index, state, low, done, maybe = self.placed.pop()
            self._put_back(index)
            left += index < self.must
            node = self.next[2 * index + 1]
        return LEGAL

    def _with(self, index: int, low: int, done: int, maybe: int) -> tuple[int, int, int]:
        """The set of placed operations, and this one."""
        if index >= self.must:
            return low, done, maybe | 1 << (index - self.must)
        done |= 1 << (index - low)
        while done & 1:
            done >>= 1
            low += 1
        return low, done, maybe

    def _take_out(self, index: int) -> None:
        for node in self._nodes(index):
            before, after = self.previous[node], self.next[node]
            self.next[before] = after
            self.previous[after] = before

    def _put_back(self, index: int) -> None:
        for node in reversed(self._nodes(index)):
            self.next[self.previous[node]] = node
            self.previous[self.next[node]] = node

    def _nodes(self, index: int) -> tuple[int, ...]:
        call = 2 * index + 1
        returns = index < self.must and self.items[index].ret is not None
        return (call, call + 1) if returns else (call,)

    # ------------------------------------------------------------------------------ the report

    def _remember(self, node: int, required: int) -> None:
        placed = len(self.placed)
        if self.deepest is not None and placed <= self.deepest.placed:
            return
        # At the list's end nothing returns; what is left to place then is still in the list.
        while node == 0 or (node & 1 and node >> 1 >= self.must):
            node = self.next[node]
        stuck = (node - 1) >> 1
        last = tuple(one.item for one in self.placed[-CONTEXT:])
        self.deepest = _Deepest(placed, required, last, stuck)

    def _explain(self) -> Finding:
        assert self.deepest is not None
        shown = [self.items[index].op for index in (*self.deepest.last, self.deepest.stuck)]
        return illegal(
            f"no order explains these answers: the longest one places {self.deepest.required} of "
            f"{self.must} operations, and the last one shown has no place after the others",
            *shown,
        )

    def _undecided(self, states: int) -> Finding:
        return Finding(
            Verdict.INCONCLUSIVE, f"the search was given up after {states - 1} positions"
        )


def _optional(one: Item) -> bool:
    return one.op.outcome is Outcome.UNKNOWN
