"""Which membership changes are refused, and how ids are made."""

from __future__ import annotations

import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import Member
from kvstore.node.membership import (
    Judge,
    cluster_id_of,
    learner_ready,
    member_id_of,
    valid_peer_urls,
)

NOW = 100.0


def judge(
    *members: Member, connected: dict[int, float] | None = None, strict: bool = True
) -> Judge:
    since = {m.id: 0.0 for m in members} if connected is None else connected
    return Judge({m.id: m for m in members}, 1, NOW, since.get, strict=strict)


def started(member_id: int) -> Member:
    return Member(member_id, f"m{member_id}", (f"http://m{member_id}:1",))


def unstarted(member_id: int, *, learner: bool = False) -> Member:
    return Member(member_id, "", (f"http://m{member_id}:1",), (), learner)


def refused(call: object) -> EtcdError:
    with pytest.raises(EtcdError) as error:
        call()  # type: ignore[operator]
    return error.value


def test_ids_are_etcds() -> None:
    # What every etcd shows that was started with its defaults.
    assert member_id_of(["http://localhost:2380"], "etcd-cluster") == 0x8E9E05C52164694D
    assert cluster_id_of([0x8E9E05C52164694D]) == 0xCDF818194E3A8C32
    assert cluster_id_of([1, 2]) == cluster_id_of([2, 1]) != cluster_id_of([1, 3])


@pytest.mark.parametrize(
    ("urls", "valid"),
    [
        (["http://a:2380"], True),
        (["https://a:2380", "http://10.0.0.1:1"], True),
        (["http://[::1]:2380"], True),
        (["unix://a:2"], True),
        (["http://a:2380/"], True),
        ([], False),
        (["http://a"], False),
        (["a:2380"], False),
        (["ftp://a:2380"], False),
        (["http://a:2380/path"], False),
        (["http://a:99999999"], False),
    ],
)
def test_peer_urls(urls: list[str], valid: bool) -> None:
    assert valid_peer_urls(urls) is valid


def test_a_single_member_may_always_grow() -> None:
    judge(started(1)).add(["http://new:1"], learner=False, max_learners=1)


def test_an_unstarted_member_blocks_the_next_voter_but_not_a_learner() -> None:
    two = judge(started(1), unstarted(2))
    call = lambda: two.add(["http://new:1"], learner=False, max_learners=1)  # noqa: E731
    assert refused(call) == errors.NOT_ENOUGH_STARTED
    judge(started(1), unstarted(2), strict=False).add(["http://n:1"], learner=False, max_learners=1)
    three = judge(started(1), started(2), unstarted(3))
    three.add(["http://new:1"], learner=True, max_learners=1)


def test_adding_needs_a_steady_connection_to_a_quorum_of_the_larger_cluster() -> None:
    members = [started(number) for number in (1, 2, 3)]
    fresh = judge(*members, connected={2: NOW - 1, 3: NOW - 1})
    call = lambda: fresh.add(["http://new:1"], learner=False, max_learners=1)  # noqa: E731
    assert refused(call) == errors.UNHEALTHY
    judge(*members, connected={2: 0.0, 3: 0.0}).add(["http://new:1"], learner=False, max_learners=1)


def test_urls_and_learners_are_checked_even_without_strictness() -> None:
    one = judge(started(1), unstarted(9, learner=True), strict=False)
    add = one.add
    assert refused(lambda: add([], learner=False, max_learners=1)) == errors.MEMBER_BAD_URLS
    assert (
        refused(lambda: add(["http://m1:1"], learner=False, max_learners=1))
        == errors.PEER_URL_EXISTS
    )
    assert (
        refused(lambda: add(["http://n:1"], learner=True, max_learners=1))
        == errors.TOO_MANY_LEARNERS
    )


def test_removing() -> None:
    members = [started(1), started(2), started(3)]
    judge(*members).remove(3)
    assert refused(lambda: judge(*members).remove(4)) == errors.MEMBER_NOT_FOUND
    assert refused(lambda: judge(started(1)).remove(1)) == errors.NOT_ENOUGH_STARTED
    lonely = judge(started(1), unstarted(2), unstarted(3))
    assert refused(lambda: lonely.remove(1)) == errors.NOT_ENOUGH_STARTED
    # Of three only this one and 3 are connected: 3 is needed, the dead 2 is not.
    half = judge(*members, connected={3: 0.0})
    assert refused(lambda: half.remove(3)) == errors.UNHEALTHY
    half.remove(2)
    judge(started(1), unstarted(2, learner=True)).remove(2)


def test_promoting() -> None:
    learner = unstarted(9, learner=True)
    ready = lambda _: True  # noqa: E731
    judge(started(1), learner).promote(9, ready=ready)
    one = judge(started(1), learner)
    assert refused(lambda: one.promote(9, ready=lambda _: False)) == errors.LEARNER_NOT_READY
    assert refused(lambda: one.promote(1, ready=ready)) == errors.MEMBER_NOT_LEARNER
    assert refused(lambda: one.promote(5, ready=ready)) == errors.MEMBER_NOT_FOUND
    few = judge(started(1), unstarted(2), unstarted(3), learner)
    assert refused(lambda: few.promote(9, ready=ready)) == errors.NOT_ENOUGH_STARTED


def test_updating() -> None:
    two = judge(started(1), started(2))
    two.update(2, ["http://elsewhere:1"])
    assert refused(lambda: two.update(2, ["http://m1:1"])) == errors.PEER_URL_EXISTS
    assert refused(lambda: two.update(7, ["http://x:1"])) == errors.MEMBER_NOT_FOUND


def test_a_learner_is_ready_at_nine_tenths() -> None:
    assert learner_ready(90, 100)
    assert not learner_ready(89, 100)
