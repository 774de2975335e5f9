"""How items are divided among members: evenly, the same for everyone, with few moves. Pure.

Each pair of item and member has a score (a hash of both, "rendezvous hashing"); the best pairs
come first, until each member has its share. So members who know each other need not talk about
it, and who comes or goes moves little more than what it gets or leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import blake2b
from typing import TypeAlias

__all__ = ("Division", "divide")

Division: TypeAlias = Callable[
    [Collection[bytes], Collection[bytes]], Mapping[bytes, frozenset[bytes]]
]
"""From items and members to each member's items; must not depend on who asks, or on order."""


def divide(items: Collection[bytes], members: Collection[bytes]) -> dict[bytes, frozenset[bytes]]:
    """Each member's items. Numbers of items differ by one at most.

    Takes time in proportion to items times members: tens of ms for 1,000 items among 10.
    """
    shares: dict[bytes, set[bytes]] = {each: set() for each in members}
    if not shares:
        return {}
    wanted = set(items)
    room, extras = divmod(len(wanted), len(shares))
    given: set[bytes] = set()
    for _, item, member in sorted(_pairs(wanted, shares)):
        share = shares[member]
        if item in given or len(share) > room or (len(share) == room and extras == 0):
            continue
        extras -= len(share) == room
        share.add(item)
        given.add(item)
    return {member: frozenset(share) for member, share in shares.items()}


def _pairs(
    items: Collection[bytes], members: Collection[bytes]
) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Every (score, item, member)."""
    for member in members:
        # Begun with a digest of fixed size: where the member ends and the item begins is clear.
        begun = blake2b(blake2b(member).digest(), digest_size=8)
        for item in items:
            score = begun.copy()
            score.update(item)
            yield score.digest(), item, member
