"""Which of several instances gets the next request.

A balancer is not safe in threads by itself; a resolver asks its own under a lock. Chance comes
from the function given (`random.random` or one with a seed), so picks can be repeated.
"""

from __future__ import annotations

import random as random_module
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Container, Sequence
from hashlib import blake2b
from itertools import chain

from kvstore.client.registry.values import Instance

__all__ = (
    "Balancer",
    "ConsistentHash",
    "LeastRequests",
    "Random",
    "RoundRobin",
    "Weighted",
    "ZoneAware",
)

Chance = Callable[[], float]
"""Numbers from 0 up to below 1."""


class Balancer(ABC):
    """Chooses among instances; may remember what it chose."""

    @abstractmethod
    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        """One of `instances` whose id is not in `avoid`; None if there is none.

        Equal keys go to the same instance where the balancer knows how. As long as the instances
        are the same, callers give the same sequence: what is computed from it is kept.
        """

    def began(self, id: str) -> None:
        """A request to this instance begins. (Only some balancers care.)"""
        return

    def ended(self, id: str) -> None:
        """A request to this instance has ended."""
        return


class RoundRobin(Balancer):
    """One after the other by id, from a first one by chance; stays in step when some leave."""

    def __init__(self, random: Chance = random_module.random) -> None:
        self._random = random
        self._known: Sequence[Instance] = ()
        self._order: list[Instance] = []
        self._ids: list[str] = []
        self._last: str | None = None

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        if instances is not self._known:
            self._known = instances
            self._order = sorted(instances, key=lambda each: each.id)
            self._ids = [each.id for each in self._order]
        count = len(self._order)
        if self._last is None:
            start = int(self._random() * count)
        else:
            start = bisect_right(self._ids, self._last)
        for step in range(count):
            chosen = self._order[(start + step) % count]
            if chosen.id not in avoid:
                self._last = chosen.id
                return chosen
        return None


class Random(Balancer):
    """Any, all equally likely."""

    def __init__(self, random: Chance = random_module.random) -> None:
        self._random = random

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        allowed = _allowed(instances, avoid)
        return allowed[int(self._random() * len(allowed))] if allowed else None


class Weighted(Balancer):
    """By weight, and smoothly: 3 to 1 is a a b a, not a a a b. Weight 0 is for want of others.

    Each pick adds to every instance's credit its weight; the richest is chosen and pays the sum.
    """

    def __init__(self) -> None:
        self._credit: dict[str, int] = {}

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        allowed = _allowed(instances, avoid)
        if not allowed:
            return None
        weighty = [each for each in allowed if each.weight > 0]
        if len(self._credit) > len(instances):
            present = {each.id for each in instances}
            self._credit = {id: left for id, left in self._credit.items() if id in present}
        credit, total = self._credit, 0
        chosen: Instance | None = None
        for each in weighty or allowed:
            weight = each.weight or 1
            total += weight
            credit[each.id] = credit.get(each.id, 0) + weight
            if chosen is None or credit[each.id] > credit[chosen.id]:
                chosen = each
        if chosen is not None:
            credit[chosen.id] -= total
        return chosen


class LeastRequests(Balancer):
    """Of two by chance the one with fewer requests under way from here, in ratio to its weight.

    Nearly as even as the least of all, without all callers rushing to the same one.
    """

    def __init__(self, random: Chance = random_module.random) -> None:
        self._random = random
        self._under_way: Counter[str] = Counter()

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        allowed = _allowed(instances, avoid)
        if len(allowed) < 2:
            return allowed[0] if allowed else None
        first = int(self._random() * len(allowed))
        second = int(self._random() * (len(allowed) - 1))
        one, other = allowed[first], allowed[second + (second >= first)]
        return one if self._load(one) <= self._load(other) else other

    def began(self, id: str) -> None:
        self._under_way[id] += 1

    def ended(self, id: str) -> None:
        self._under_way[id] -= 1
        if self._under_way[id] <= 0:
            del self._under_way[id]

    def under_way(self, id: str) -> int:
        """How many requests to this instance have begun and not ended."""
        return self._under_way[id]

    def _load(self, instance: Instance) -> float:
        return (self._under_way[instance.id] + 1) / (instance.weight or 0.001)


class ZoneAware(Balancer):
    """Instances of the own zone, as `inner` chooses; all of them while the zone has too few.

    `at_least` so many must be there to keep the requests: one instance should not get what was
    meant for the zone's ten.
    """

    def __init__(self, inner: Balancer, zone: str, *, at_least: int = 1) -> None:
        self._inner = inner
        self._zone = zone
        self._at_least = at_least
        self._known: Sequence[Instance] = ()
        self._near: tuple[Instance, ...] = ()

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        if instances is not self._known:
            self._known = instances
            self._near = tuple(each for each in instances if each.zone == self._zone)
        if len(_allowed(self._near, avoid)) >= self._at_least:
            return self._inner.pick(self._near, key=key, avoid=avoid)
        return self._inner.pick(instances, key=key, avoid=avoid)

    def began(self, id: str) -> None:
        self._inner.began(id)

    def ended(self, id: str) -> None:
        self._inner.ended(id)


class ConsistentHash(Balancer):
    """Equal keys go to the same instance; when one comes or goes, only its own keys move.

    A ring: each instance stands at `points` places times its weight (at most 100 of it count), a
    key belongs to the first instance from its own place on. Picks without a key are by chance.
    """

    def __init__(self, points: int = 100, random: Chance = random_module.random) -> None:
        self._points = points
        self._random = random
        self._known: Sequence[Instance] = ()
        self._ring: list[tuple[int, str]] = []
        self._places: list[int] = []
        self._by_id: dict[str, Instance] = {}
        self._points_of: dict[tuple[str, int], list[tuple[int, str]]] = {}

    def pick(
        self, instances: Sequence[Instance], *, key: str = "", avoid: Container[str] = ()
    ) -> Instance | None:
        if instances is not self._known:
            self._build(instances)
        if not self._ring:
            return None
        place = _hashes(key, 1)[0] if key else int(self._random() * 2**64)
        start = bisect_right(self._places, place)
        seen: set[str] = set()
        for step in range(len(self._ring)):
            id = self._ring[(start + step) % len(self._ring)][1]
            if id not in avoid:
                return self._by_id[id]
            seen.add(id)
            if len(seen) == len(self._by_id):
                break
        return None

    def _build(self, instances: Sequence[Instance]) -> None:
        self._known = instances
        weighty = [each for each in instances if each.weight > 0] or instances
        before, self._points_of = self._points_of, {}
        for each in weighty:
            count = self._points * min(each.weight or 1, 100)
            name = (each.id, count)
            found = before.get(name)
            if found is None:
                found = sorted((place, each.id) for place in _hashes(each.id, count))
            self._points_of[name] = found
        self._ring = sorted(chain.from_iterable(self._points_of.values()))
        self._places = [place for place, _ in self._ring]
        self._by_id = {each.id: each for each in weighty}


def _hashes(text: str, count: int) -> list[int]:
    """So many numbers of 64 bits that this text stands for."""
    found: list[int] = []
    for part in range((count + 7) // 8):
        digest = blake2b(text.encode(), salt=part.to_bytes(8, "big")).digest()
        found += (int.from_bytes(digest[at : at + 8], "big") for at in range(0, 64, 8))
    return found[:count]


def _allowed(instances: Sequence[Instance], avoid: Container[str]) -> Sequence[Instance]:
    if not avoid:
        return instances
    return [each for each in instances if each.id not in avoid]
