"""The partitioner: the arithmetic of shares, and items that change hands between clients."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client import KvError, LeaseLostError, LockTimeoutError, PartitionState, Put
from kvstore.client.recipes import divide
from tests.unit.client.recipes.conftest import MakeClient, Spawn
from tests.unit.client.recipes.waiting import notice_loss

names = st.lists(st.binary(min_size=1, max_size=4), unique=True, max_size=20)


@given(items=names, members=names.filter(bool))
def test_every_item_is_one_members_and_shares_are_even(
    items: list[bytes], members: list[bytes]
) -> None:
    shares = divide(items, members)
    assert set(shares) == set(members)
    assert sorted(item for share in shares.values() for item in share) == sorted(items)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1
    assert divide(items[::-1], members[::-1]) == shares


def test_nobody_gets_nothing() -> None:
    assert divide([b"a"], []) == {}


def test_who_comes_or_goes_moves_little() -> None:
    items = [b"item-%d" % i for i in range(400)]
    members = [b"member-%d" % i for i in range(10)]
    before, after = divide(items, members[:9]), divide(items, members)
    moved = sum(len(before[each] - after[each]) for each in members[:9])
    assert 40 <= moved <= 80  # at least the newcomer's share has to move


def test_items_change_hands(client: Any, other: Any, spawn: Spawn, name: str) -> None:
    items = [f"shard/{i}" for i in range(6)]
    one = client.partitioner(name, items, ttl=30, identifier="one")
    two = other.partitioner(name, items, ttl=30, identifier="two")
    assert one.state is PartitionState.FAILED
    with one:
        assert one.state is PartitionState.ALLOCATING
        assert one.acquire() == {each.encode() for each in items}
        assert one.state is PartitionState.ACQUIRED
        assert not one.wait_change(timeout=0.02)
        tokens = {each: one.item_token(each) for each in items}
        changing = spawn(one.wait_change)
        with two:
            assert changing.result(5)
            assert one.state is PartitionState.RELEASE
            assert len(one.leaving) == 3
            with pytest.raises(LockTimeoutError, match="still another member's"):
                two.acquire(timeout=0.05)
            acquiring = spawn(two.acquire)
            going = set(one.leaving)
            guard = one.item_guard(sorted(going)[0])
            one.release()
            assert acquiring.result(5) == going
            assert one.acquire(timeout=5) == {each.encode() for each in items} - going
            assert one.state is PartitionState.ACQUIRED
            assert [each.identifier for each in one.members()] == [b"one", b"two"]
            # What moved has a new token, what stayed has not; the old owner's writes are refused.
            assert not client.txn().when(guard).then(Put(name, "late")).commit().succeeded
            for item in items:
                owner = two if item.encode() in going else one
                assert (owner.item_token(item) > tokens[item]) == (owner is two)
            with pytest.raises(KvError, match="is not ours"):
                one.item_token(sorted(going)[0])
        assert one.wait_change(timeout=5)
        one.release()
        assert len(one.acquire(timeout=5)) == 6
    assert client.get_prefix(f"{name}/").count == 0


def test_a_dead_members_items_are_taken_over(client: Any, other: Any, name: str) -> None:
    items = [f"{i}" for i in range(4)]
    one, two = client.partitioner(name, items, ttl=30), other.partitioner(name, items, ttl=30)
    with one, two:
        assert {len(each.acquire(timeout=5)) for each in (one, two)} == {2}
        client.lease_revoke(two.lease.id)
        assert one.wait_change(timeout=5)
        one.release()
        assert len(one.acquire(timeout=5)) == 4
        notice_loss(two)
        assert two.state is PartitionState.FAILED
        assert two.owned == frozenset()
        assert two.wait_change(timeout=5)
        with pytest.raises(LeaseLostError, match="has ended"):
            two.acquire()
        two.join()
        assert one.wait_change(timeout=5)
        one.release()
        assert len(two.acquire(timeout=5)) == 2


def test_a_given_lease_is_kept(client: Any, name: str) -> None:
    with client.lease(30) as lease:
        with client.partitioner(name, [f"{i}" for i in range(120)], lease=lease) as alone:
            assert len(alone.acquire()) == 120
        assert client.lease_time_to_live(lease.id, keys=True).keys == ()


def test_no_item_has_two_owners_while_members_come_and_go(
    make_client: MakeClient, spawn: Spawn, name: str
) -> None:
    items = [f"{i}" for i in range(7)]
    guarding = threading.Lock()
    working: dict[bytes, int] = {}
    wrong: list[str] = []
    done = threading.Event()

    def begin(number: int, share: frozenset[bytes]) -> None:
        with guarding:
            wrong.extend(
                f"{item!r} is worked on by {working[item]} and {number}"
                for item in share
                if working.setdefault(item, number) != number
            )

    def end(number: int, share: frozenset[bytes]) -> None:
        with guarding:
            for item in share:
                if working.get(item) == number:
                    del working[item]

    def work(client: Any, number: int, turns: int) -> None:
        """Odd members stop all work when something changes, even ones only what has to go."""
        with client.partitioner(name, items, ttl=30) as mine:
            while turns != 0 and not done.is_set():
                turns -= 1
                begin(number, mine.acquire(timeout=20))
                mine.wait_change(timeout=0.05)
                going = mine.leaving
                end(number, mine.owned if number % 2 else going)
                mine.release(None if number % 2 else going)
            end(number, mine.owned)

    long = [spawn(work, make_client(), i, -1) for i in range(2)]
    for round_ in range(3):
        for each in [spawn(work, make_client(), 10 * round_ + i, 2) for i in (3, 4)]:
            each.result(60)
    done.set()
    for each in long:
        each.result(60)
    assert not wrong
    assert make_client().get_prefix(f"{name}/").count == 0
