"""Any interleaving of any clients, some of which die: who may be inside, and in which order.

The programs of the recipes run on the real state machine, one step at a time, in an order that
hypothesis chooses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.client.errors import LeaseLostError
from kvstore.client.recipes import (
    DoubleBarrierRecipe,
    ExclusiveRecipe,
    LockingQueueRecipe,
    LockRecipe,
    QueueRecipe,
    ReadLockRecipe,
    SemaphoreRecipe,
    WriteLockRecipe,
)
from kvstore.client.recipes.steps import Program
from tests.support.programs import Actor, Store

CLIENTS = 6
choices = st.lists(st.integers(0, 1 << 16), max_size=120)
STEPS = 5000


def clock() -> float:
    """Nothing here has a deadline."""
    return 0.0


class Client:
    """An actor with a recipe: it wants in, is in, or is out."""

    def __init__(self, store: Store, recipe: ExclusiveRecipe) -> None:
        self.actor = Actor(store)
        self.recipe = recipe

    @property
    def inside(self) -> bool:
        """Holds it, as far as the store is concerned."""
        return self.recipe.held and not self.actor.busy

    def act(self, dies: bool) -> None:
        """The next thing to do: come, go on, die, or leave."""
        if dies and self.actor.lease is not None:
            self.actor.die()
        elif self.actor.runnable:
            self.actor.go()
        elif not self.actor.busy:
            again = self.recipe.release if self.inside else self.recipe.acquire
            self.actor.begin(again())


def run(
    picks: list[int], clients: list[Client], check: Callable[[], None], *, deaths: bool = True
) -> None:
    """Let clients act as picked, checking after each step; in the end everybody gets out."""
    for pick in picks:
        client = clients[pick % len(clients)]
        client.act(dies=deaths and pick // len(clients) % 23 == 22)
        check()
    for _ in range(STEPS):
        moving = [each for each in clients if each.actor.runnable or each.inside]
        if not moving:
            break
        moving[0].act(dies=False)
        check()
    assert not [each for each in clients if each.actor.busy], "somebody waits for ever"
    for each in clients:
        assert each.actor.error is None or isinstance(each.actor.error, LeaseLostError)


@given(picks=choices)
@settings(max_examples=50, deadline=None)
def test_one_holds_a_lock_in_order_with_growing_tokens(picks: list[int]) -> None:
    store = Store()
    clients = [Client(store, LockRecipe("l", clock, ttl=60)) for _ in range(CLIENTS)]
    tokens: list[int] = []

    def check() -> None:
        inside = [each for each in clients if each.inside]
        assert len(inside) <= 1
        tokens.extend(each.recipe.claim.token for each in inside)
        # No herd: nobody watches what another one watches.
        watched = [each.actor.waits_for for each in clients]
        assert not [key for key, count in Counter(watched).items() if key and count > 1]

    run(picks, clients, check)
    assert tokens == sorted(tokens)


@given(picks=choices, writers=st.integers(0, CLIENTS))
@settings(max_examples=60, deadline=None)
def test_readers_and_writers(picks: list[int], writers: int) -> None:
    store = Store()
    clients = [
        Client(store, (WriteLockRecipe if i < writers else ReadLockRecipe)("rw", clock, ttl=60))
        for i in range(CLIENTS)
    ]
    entered: list[tuple[int, bool]] = []

    def check() -> None:
        inside = [each for each in clients if each.inside]
        writing = [each for each in inside if isinstance(each.recipe, WriteLockRecipe)]
        assert len(inside) == 1 or not writing
        for each in inside:
            entry = (each.recipe.claim.token, each in writing)
            if entry not in entered:
                entered.append(entry)

    run(picks, clients, check)
    # First come, first served: of two, one of which writes, the older one went in first.
    for i, (token, writes) in enumerate(entered):
        for later, also_writes in entered[i + 1 :]:
            assert later > token or not (writes or also_writes)


@given(picks=choices, places=st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_semaphores_places(picks: list[int], places: int) -> None:
    store = Store()
    clients = [
        Client(store, SemaphoreRecipe("s", clock, max_leases=places, ttl=60))
        for _ in range(CLIENTS)
    ]

    def check() -> None:
        assert sum(each.inside for each in clients) <= places
        # No herd: one watches the holders, each other one the place before it.
        watched = [each.actor.waits_for for each in clients]
        assert not [key for key, count in Counter(watched).items() if key and count > 1]

    run(picks, clients, check)


def drain(actors: list[Actor], picks: list[int]) -> None:
    """Let actors go on as picked, then until nobody can."""
    for pick in picks:
        moving = [each for each in actors if each.runnable]
        if moving:
            moving[pick % len(moving)].go()
    for _ in range(STEPS):
        moving = [each for each in actors if each.runnable]
        if not moving:
            return
        moving[0].go()
    raise AssertionError("it does not end")


@given(picks=choices, locking=st.booleans(), consumers=st.integers(1, 4), full=st.booleans())
@settings(max_examples=50, deadline=None)
def test_queues_give_each_entry_once(
    picks: list[int], locking: bool, consumers: int, full: bool
) -> None:
    """`full`: everything is there before the first consumer comes."""
    store = Store()
    queues = [
        (LockingQueueRecipe if locking else QueueRecipe)("q", clock, ttl=60)
        for _ in range(consumers + 2)
    ]
    taken: list[bytes] = []

    def consume(queue: Any) -> Program[None]:
        while True:
            value = yield from queue.get()
            if locking:
                yield from queue.consume()
            if value == b"end":
                return
            taken.append(value)

    def produce(queue: Any, number: int) -> Program[None]:
        for turn in range(3):
            yield from queue.put(b"%d-%d" % (number, turn))
        yield from queue.put_all([b"end"] * (consumers if number == 0 else 0), 999)

    actors = [Actor(store) for _ in queues]
    for number, actor in enumerate(actors[consumers:]):
        actor.begin(produce(queues[consumers + number], number))
    if full:
        drain(actors, [])
    for actor, queue in zip(actors[:consumers], queues, strict=False):
        actor.begin(consume(queue))
    drain(actors, picks)
    # "end" may come before the other producer's last entries: nobody is left to take those.
    rest = Actor(store)
    rest.begin(_rest(queues[-1], locking, taken))
    drain([rest], [])
    assert sorted(taken) == [b"%d-%d" % (i, j) for i in range(2) for j in range(3)]
    assert all(each.error is None for each in (*actors, rest))


def _rest(queue: Any, locking: bool, taken: list[bytes]) -> Program[None]:
    while True:
        value = yield from queue.get(timeout=0)
        if value is None:
            return
        if locking:
            yield from queue.consume()
        if value != b"end":
            taken.append(value)


@given(picks=choices, rounds=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_rounds_of_a_double_barrier_do_not_mix(picks: list[int], rounds: int) -> None:
    store = Store()
    came, went = Counter[int](), Counter[int]()

    def take_part() -> Program[None]:
        barrier = DoubleBarrierRecipe("b", clock, count=3, ttl=60)
        for turn in range(rounds):
            came[turn] += 1
            yield from barrier.begin()
            assert came[turn] == 3
            went[turn] += 1
            yield from barrier.end()
            assert went[turn] == 3

    actors = [Actor(store) for _ in range(3)]
    for each in actors:
        each.begin(take_part())
    drain(actors, picks)
    assert not [each for each in actors if each.busy or each.error]
