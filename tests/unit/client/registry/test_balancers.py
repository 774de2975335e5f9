"""Balancers: fair as they promise, steady under change, and the same again with the same chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client.registry import (
    Balancer,
    ConsistentHash,
    Instance,
    LeastRequests,
    Random,
    RoundRobin,
    Weighted,
    ZoneAware,
)


def instance(id: str, *, weight: int = 1, zone: str = "") -> Instance:
    return Instance(service="s", id=id, address="h", ports={"p": 1}, weight=weight, zone=zone)


def group(*ids: str) -> tuple[Instance, ...]:
    return tuple(map(instance, ids))


def picks(balancer: Balancer, instances: Sequence[Instance], count: int) -> list[str]:
    found = [balancer.pick(instances) for _ in range(count)]
    return [each.id for each in found if each is not None]


def every_balancer(seed: int) -> list[Balancer]:
    chance = random.Random(seed).random
    return [
        RoundRobin(chance),
        Random(chance),
        Weighted(),
        LeastRequests(chance),
        ZoneAware(RoundRobin(chance), "a"),
        ConsistentHash(10, chance),
    ]


ids = st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=12)


@st.composite
def instances(draw: st.DrawFn) -> tuple[Instance, ...]:
    return tuple(
        instance(id, weight=draw(st.integers(0, 5)), zone=draw(st.sampled_from("abc")))
        for id in sorted(draw(ids))
    )


@given(instances(), ids, st.integers(0, 99), st.text(max_size=5))
def test_whatever_is_picked_may_be_picked(
    some: tuple[Instance, ...], avoid: set[str], seed: int, key: str
) -> None:
    for balancer in every_balancer(seed):
        chosen = balancer.pick(some, key=key, avoid=avoid)
        allowed = [each for each in some if each.id not in avoid]
        if isinstance(balancer, ConsistentHash):
            allowed = [i for i in allowed if i.weight or not any(one.weight for one in some)]
        if chosen is None:
            assert not allowed, balancer
        else:
            assert chosen in allowed, balancer


@given(instances(), st.integers(0, 99))
def test_the_same_chance_picks_the_same(some: tuple[Instance, ...], seed: int) -> None:
    for one, other in zip(every_balancer(seed), every_balancer(seed), strict=True):
        # One after the other: within a list all draw from one source.
        assert type(one) is type(other)
    first = [picks(each, some, 20) for each in every_balancer(seed)]
    assert first == [picks(each, some, 20) for each in every_balancer(seed)]


def test_round_robin_takes_turns_and_stays_in_step() -> None:
    balancer = RoundRobin(lambda: 0.4)
    three = group("a", "b", "c")
    assert picks(balancer, three, 4) == ["b", "c", "a", "b"]
    assert picks(balancer, group("a", "c"), 2) == ["c", "a"]
    assert picks(balancer, three, 3) == ["b", "c", "a"]
    chosen = balancer.pick(three, avoid={"b"})
    assert chosen is not None
    assert chosen.id == "c"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_weighted_is_exact_over_a_round_and_never_far_off(weights: list[int]) -> None:
    some = tuple(instance(f"i{n}", weight=weight) for n, weight in enumerate(weights))
    balancer, total = Weighted(), sum(weights)
    counts: Counter[str] = Counter()
    for step, id in enumerate(picks(balancer, some, total), 1):
        counts[id] += 1
        for each in some:
            assert abs(counts[each.id] - each.weight * step / total) < len(weights)
    assert counts == {each.id: each.weight for each in some}


def test_weighted_is_smooth_and_leaves_weight_0_for_the_end() -> None:
    some = (instance("a", weight=3), instance("b"), instance("c", weight=0))
    assert picks(Weighted(), some, 4) == ["a", "a", "b", "a"]
    last = Weighted().pick(some, avoid={"a", "b"})
    assert last is not None
    assert last.id == "c"


def test_least_requests_prefers_the_idle_one_of_two() -> None:
    balancer = LeastRequests(random.Random(1).random)
    pair = group("a", "b")
    for _ in range(5):
        balancer.began("a")
    assert set(picks(balancer, pair, 20)) == {"b"}
    for _ in range(5):
        balancer.ended("a")
    assert set(picks(balancer, pair, 20)) == {"a", "b"}
    assert balancer.under_way("a") == 0


def test_least_requests_keeps_the_load_even() -> None:
    balancer = LeastRequests(random.Random(2).random)
    some = group(*"abcdefghij")
    for _ in range(1000):
        chosen = balancer.pick(some)
        assert chosen is not None
        balancer.began(chosen.id)
    loads = [balancer.under_way(each.id) for each in some]
    assert max(loads) - min(loads) <= 4  # by chance alone it would be some 30


def test_zone_aware_stays_near_while_there_are_enough() -> None:
    some = (instance("a1", zone="a"), instance("a2", zone="a"), instance("b1", zone="b"))
    balancer = ZoneAware(RoundRobin(lambda: 0.0), "a", at_least=2)
    assert set(picks(balancer, some, 6)) == {"a1", "a2"}
    away = balancer.pick(some, avoid={"a1"})
    assert away is not None
    assert {away.id} | set(picks(balancer, some[1:], 6)) == {"a2", "b1"}


@pytest.mark.parametrize("leaver", range(6))
def test_consistent_hash_moves_only_the_keys_of_who_left(leaver: int) -> None:
    some = group(*(f"node-{n}" for n in range(6)))
    less = tuple(each for n, each in enumerate(some) if n != leaver)
    balancer = ConsistentHash()
    keys = [f"user-{n}" for n in range(2000)]

    def owners(of: Sequence[Instance], avoid: frozenset[str] = frozenset()) -> dict[str, str]:
        found = {key: balancer.pick(of, key=key, avoid=avoid) for key in keys}
        return {key: each.id for key, each in found.items() if each is not None}

    before, after = owners(some), owners(less)
    for key in keys:
        if before[key] != some[leaver].id:
            assert after[key] == before[key]
    # Leaving one out is as good as taking it away.
    assert owners(some, frozenset({some[leaver].id})) == after
    counts = Counter(before.values())
    assert max(counts.values()) < 2 * min(counts.values())


def test_consistent_hash_gives_more_keys_to_more_weight() -> None:
    some = (instance("a", weight=3), instance("b", weight=1), instance("c", weight=0))
    balancer = ConsistentHash()
    found = Counter(
        each.id for n in range(4000) if (each := balancer.pick(some, key=f"k{n}")) is not None
    )
    assert found["c"] == 0
    assert 2.2 < found["a"] / found["b"] < 4.0
