"""Deadlines of instances, with a clock that is moved by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.registry.limits import CONFIRMED_PAUSE_S, REMOVAL_RETRY_S
from kvstore.registry.liveness import Liveness, Tracked

ALL = 1 << 30


def table(*tracked: Tracked, now: float = 0.0) -> Liveness:
    liveness = Liveness()
    liveness.promote(tracked, now)
    return liveness


def test_silence_is_told_once_and_a_heartbeat_ends_it() -> None:
    liveness = table(Tracked(1, 10, 30, False))
    assert liveness.due(9.9, ALL) == ([], [])
    assert liveness.due(10.0, ALL) == ([1], [])
    assert liveness.is_silent(1)
    assert liveness.due(20.0, ALL) == ([], [])
    assert liveness.renewed([1, 404], 21.0) == [1]
    assert liveness.renewed([1], 22.0) == []
    assert liveness.due(31.9, ALL) == ([], [])
    assert liveness.due(32.0, ALL) == ([1], [])


def test_grace_counts_from_the_last_heartbeat() -> None:
    liveness = table(Tracked(1, 10, 30, False))
    assert liveness.due(15.0, ALL) == ([1], [])
    assert liveness.due(39.9, ALL) == ([], [])
    assert liveness.due(40.0, ALL) == ([], [1])
    assert liveness.due(40.1, ALL) == ([], [])
    assert liveness.due(40.0 + REMOVAL_RETRY_S, ALL) == ([], [1])
    liveness.forget(1)
    assert liveness.due(1000.0, ALL) == ([], [])


def test_a_new_leader_gives_everybody_the_whole_time() -> None:
    liveness = table(Tracked(1, 10, 30, False), Tracked(2, 10, 30, True), now=100.0)
    assert liveness.due(109.9, ALL) == ([], [])
    assert liveness.due(110.0, ALL) == ([1], [])
    assert liveness.renewed([2], 111.0) == [2]
    assert liveness.due(140.0, ALL) == ([2], [1])


def test_an_instance_that_was_silent_before_is_not_told_again_but_removed() -> None:
    liveness = table(Tracked(2, 10, 30, True), now=100.0)
    assert liveness.due(139.9, ALL) == ([], [])
    assert liveness.due(140.0, ALL) == ([], [2])


def test_who_is_held_is_not_overdue_until_let_go() -> None:
    liveness = table(Tracked(1, 10, 30, False), Tracked(2, 10, 30, False))
    liveness.due(10.0, ALL)
    liveness.hold([1, 2, 404])
    assert liveness.due(100.0, ALL) == ([], [])
    liveness.let_go([1], 100.0, gone=False)
    liveness.let_go([2, 404], 100.0, gone=True)
    assert liveness.due(101.9, ALL) == ([], [])
    assert liveness.due(102.0, ALL) == ([], [2])
    assert liveness.due(129.9, ALL).overdue == [2]
    assert 1 in liveness.due(130.0, ALL).overdue


def test_who_is_confirmed_to_be_gone_does_not_wait_for_the_grace_time() -> None:
    liveness = table(Tracked(1, 10, 3600, False))
    liveness.due(10.0, ALL)
    liveness.hold([1])
    liveness.let_go([1], 20.0, gone=True)
    assert liveness.due(20.0 + CONFIRMED_PAUSE_S, ALL) == ([], [1])


def test_a_heartbeat_ends_a_hold() -> None:
    liveness = table(Tracked(1, 10, 30, False))
    liveness.due(10.0, ALL)
    liveness.hold([1])
    assert liveness.renewed([1], 50.0) == [1]
    assert liveness.due(60.0, ALL) == ([1], [])
    assert liveness.due(90.0, ALL) == ([], [1])


def test_other_times_count_from_the_last_heartbeat_too() -> None:
    liveness = table(Tracked(1, 10, 30, False))
    liveness.renewed([1], 5.0)
    liveness.track(Tracked(1, 2, 3, False), 6.0)
    assert liveness.due(7.0, ALL) == ([1], [])
    assert liveness.due(10.0, ALL) == ([], [1])


def test_a_turn_is_bounded_and_nothing_is_lost() -> None:
    liveness = table(*(Tracked(n, 10, 30, False) for n in range(100)))
    found: list[int] = []
    for _ in range(10):
        part = liveness.due(10.0, 10).silent
        assert len(part) == 10
        found += part
    assert sorted(found) == list(range(100))


def test_coming_and_going_for_ever_keeps_the_heap_small() -> None:
    liveness = table()
    for number in range(10_000):
        liveness.track(Tracked(number, 10, 30, False), 0.0)
        liveness.forget(number)
    assert len(liveness._heap) <= 1_100
    assert len(liveness) == 0


@dataclass
class Plain:
    """One instance, written down as plainly as possible."""

    ttl: int
    grace: int
    last: float
    silent: bool
    remove_at: float = 0.0
    held: bool = False


@dataclass
class Brute:
    """Looks at everybody at every moment."""

    all: dict[int, Plain] = field(default_factory=dict)

    def due(self, now: float) -> tuple[list[int], list[int]]:
        silent, overdue = [], []
        for lease, each in self.all.items():
            if not each.silent and each.last + each.ttl <= now:
                each.silent = True
                each.remove_at = each.last + each.ttl + each.grace
                silent.append(lease)
            if each.silent and not each.held and each.remove_at <= now:
                overdue.append(lease)
                each.remove_at = now + REMOVAL_RETRY_S
        return sorted(silent), sorted(overdue)


steps = st.lists(
    st.tuples(
        st.sampled_from(["wait", "wait", "renew", "track", "forget", "hold", "let_go", "promote"]),
        st.integers(0, 5),
        st.integers(1, 12),
        st.integers(0, 12),
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps)
def test_the_table_agrees_with_looking_at_everybody(
    moves: list[tuple[str, int, int, int, bool]],
) -> None:
    liveness, brute, now = table(), Brute(), 0.0
    for move, lease, one, two, flag in moves:
        each = brute.all.get(lease)
        match move:
            case "wait":
                now += one / 2
            case "renew":
                expected = [lease] if each is not None and each.silent else []
                assert liveness.renewed([lease], now) == expected
                if each is not None:
                    each.last, each.silent, each.held = now, False, False
            case "track":
                liveness.track(Tracked(lease, one, two, flag), now)
                if each is None:
                    brute.all[lease] = Plain(one, two, now, flag, now + one + two)
                else:
                    each.remove_at += one + two - each.ttl - each.grace
                    each.ttl, each.grace = one, two
            case "forget":
                liveness.forget(lease)
                brute.all.pop(lease, None)
            case "hold":
                liveness.hold([lease])
                if each is not None and each.silent:
                    each.held = True
            case "let_go":
                liveness.let_go([lease], now, gone=flag)
                if each is not None and each.held:
                    each.held = False
                    if flag:
                        each.remove_at = now + CONFIRMED_PAUSE_S
                    else:
                        each.remove_at = max(each.remove_at, now + each.grace)
            case "promote":
                now += 1
                liveness.promote(
                    [Tracked(n, p.ttl, p.grace, p.silent) for n, p in brute.all.items()], now
                )
                for p in brute.all.values():
                    p.last, p.held, p.remove_at = now, False, now + p.ttl + p.grace
        silent: list[int] = []
        overdue: list[int] = []
        for _ in range(2):  # A record that surfaces may lead to another one that is due.
            found = liveness.due(now, ALL)
            silent += found.silent
            overdue += found.overdue
        assert (sorted(silent), sorted(overdue)) == brute.due(now)
        for number, plain in brute.all.items():
            assert liveness.is_silent(number) is plain.silent
