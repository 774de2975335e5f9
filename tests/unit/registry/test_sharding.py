"""Who is responsible for what: the same everywhere, even, and stable when members come and go."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kvstore.registry.names import InstanceName
from kvstore.registry.sharding import responsible

MEMBERS = st.frozensets(st.integers(1, 2**64 - 1), max_size=7)
NAMES = [InstanceName("default", "payment", f"payment-{n}") for n in range(300)]


@given(MEMBERS, st.randoms(use_true_random=False))
def test_the_order_in_which_members_are_known_does_not_matter(members: frozenset[int], r) -> None:  # type: ignore[no-untyped-def]
    shuffled = sorted(members)
    r.shuffle(shuffled)
    for name in NAMES[:20]:
        chosen = responsible(name, shuffled)
        assert chosen == responsible(name, members)
        assert chosen in members if members else chosen == 0


@given(MEMBERS.filter(lambda members: len(members) >= 2))
def test_only_what_a_member_had_moves_when_it_goes(members: frozenset[int]) -> None:
    gone = min(members)
    for name in NAMES[:50]:
        before, after = responsible(name, members), responsible(name, members - {gone})
        assert after == before or before == gone


def test_the_work_is_spread() -> None:
    shares = Counter(responsible(name, (11, 22, 33)) for name in NAMES)
    assert all(70 <= share <= 130 for share in shares.values()), shares
