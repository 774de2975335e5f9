"""What etcd clients rely on, through a real channel; runs against any server at `target`."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.pb import rpc_pb2, v3election_pb2
from tests.unit.api.client import (
    Client,
    create,
    created,
    event,
    op_delete,
    op_put,
    op_range,
    op_txn,
    pairs,
)

R = rpc_pb2.RangeRequest


def end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))


class raises:  # noqa: N801 - reads like pytest.raises
    """Expects exactly this error, code and message."""

    def __init__(self, error: EtcdError) -> None:
        self._error = error

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: Any, raised: Any, _trace: Any) -> bool:
        assert isinstance(raised, grpc.RpcError), f"{self._error!r} did not come: {raised!r}"
        got = (raised.code().value[0], raised.details())
        assert got == (int(self._error.code), self._error.message)
        return True


# Keys


def test_put_then_range_shows_the_pair_and_its_revisions(client: Client, base: bytes) -> None:
    first = client.put(base + b"a", b"1")
    second = client.put(base + b"a", b"2")
    assert second.header.revision == first.header.revision + 1
    assert second.header.cluster_id
    assert second.header.member_id
    assert second.header.raft_term
    (kv,) = client.range(base + b"a").kvs
    assert (kv.value, kv.version) == (b"2", 2)
    assert (kv.create_revision, kv.mod_revision) == (
        first.header.revision,
        second.header.revision,
    )


def test_prev_kv_and_deletion(client: Client, base: bytes) -> None:
    assert not client.put(base, b"1", prev_kv=True).HasField("prev_kv")
    assert client.put(base, b"2", prev_kv=True).prev_kv.value == b"1"
    deleted = client.delete(base, prev_kv=True)
    assert deleted.deleted == 1
    assert deleted.prev_kvs[0].value == b"2"
    revision = deleted.header.revision
    assert client.delete(base).header.revision == revision, "nothing changed, nothing counted"
    assert client.range(base).count == 0


def test_range_options(client: Client, base: bytes) -> None:
    for key, value in ((b"a", b"3"), (b"b", b"1"), (b"c", b"2")):
        client.put(base + key, value)
    stop = end(base)
    page = client.range(base, stop, limit=2)
    assert [kv.key[-1:] for kv in page.kvs] == [b"a", b"b"]
    assert (page.count, page.more) == (3, True)
    ordered = client.range(base, stop, sort_order=R.DESCEND, sort_target=R.VALUE)
    assert [kv.value for kv in ordered.kvs] == [b"3", b"2", b"1"]
    counted = client.range(base, stop, count_only=True)
    assert (counted.count, len(counted.kvs), counted.more) == (3, 0, False)
    assert [kv.value for kv in client.range(base, stop, keys_only=True).kvs] == [b""] * 3
    past = client.range(base, stop, revision=page.kvs[0].mod_revision)
    assert pairs(past) == [(base + b"a", b"3")]
    assert past.header.revision >= ordered.kvs[0].mod_revision, "the current revision"
    assert client.range(base, stop, serializable=True).count == 3
    newest = client.range(base, stop, min_mod_revision=past.kvs[0].mod_revision + 1)
    assert (len(newest.kvs), newest.count) == (2, 3)


def test_range_refusals(client: Client, base: bytes) -> None:
    with raises(errors.EMPTY_KEY):
        client.range(b"")
    with raises(errors.INVALID_SORT_OPTION):
        client.range(base, sort_order=3)
    with raises(errors.INVALID_SORT_OPTION):
        client.range(base, sort_target=5)
    with raises(errors.FUTURE_REVISION):
        client.range(base, revision=2**40)


def test_put_refusals(client: Client, base: bytes) -> None:
    with raises(errors.EMPTY_KEY):
        client.put(b"", b"x")
    with raises(errors.VALUE_PROVIDED):
        client.put(base, b"x", ignore_value=True)
    with raises(errors.LEASE_PROVIDED):
        client.put(base, ignore_lease=True, lease=5)
    with raises(errors.KEY_NOT_FOUND):
        client.put(base, ignore_value=True)
    with raises(errors.LEASE_NOT_FOUND):
        client.put(base, lease=2**61)
    with raises(errors.REQUEST_TOO_LARGE):
        client.put(base, bytes(1_572_864))
    with raises(errors.EMPTY_KEY):
        client.delete(b"")


def test_compaction_ends_history(client: Client, base: bytes) -> None:
    old = client.put(base, b"1").header.revision
    new = client.put(base, b"2").header.revision
    client.compact(new)
    with raises(errors.COMPACTED):
        client.range(base, revision=old)
    assert client.range(base, revision=new).kvs[0].value == b"2"
    with raises(errors.COMPACTED):
        client.compact(new)
    with raises(errors.FUTURE_REVISION):
        client.compact(2**40)


def test_range_stream_merges_to_the_range(client: Client, base: bytes) -> None:
    for number in range(35):
        client.put(base + b"%03d" % number, b"v")
    whole = client.range(base, end(base))
    merged = rpc_pb2.RangeResponse()
    pieces = list(
        client.stream(
            "/etcdserverpb.KV/RangeStream",
            R(key=base, range_end=end(base)),
            rpc_pb2.RangeStreamResponse,
        )
    )
    assert len(pieces) > 1
    for piece in pieces:
        merged.MergeFrom(piece.range_response)
    assert merged == whole
    assert not any(piece.range_response.HasField("header") for piece in pieces[:-1])


def test_range_stream_refuses_orders_and_filters(client: Client, base: bytes) -> None:
    for fields in ({"sort_order": R.DESCEND}, {"min_mod_revision": 1}):
        with pytest.raises(grpc.RpcError) as raised:
            list(
                client.stream(
                    "/etcdserverpb.KV/RangeStream",
                    R(key=base, **fields),
                    rpc_pb2.RangeStreamResponse,
                )
            )
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Transactions


def test_txn_takes_one_branch_at_one_revision(client: Client, base: bytes) -> None:
    a, b = base + b"a", base + b"b"
    done = client.txn([created(a, 0)], [op_put(a, b"1"), op_put(b, b"2"), op_range(a)])
    assert done.succeeded
    assert len(done.responses) == 3
    assert done.responses[2].response_range.kvs[0].value == b"1", "later ops see earlier ones"
    revisions = {kv.mod_revision for kv in client.range(base, end(base)).kvs}
    assert revisions == {done.header.revision}
    other = client.txn([created(a, 0)], [op_put(a, b"x")], [op_range(a), op_delete(b)])
    assert not other.succeeded
    assert other.responses[0].response_range.kvs[0].value == b"1"
    assert other.responses[1].response_delete_range.deleted == 1


def test_nested_txn_and_read_only_txn(client: Client, base: bytes) -> None:
    nested = client.txn([], [op_put(base, b"1"), op_txn([created(base, 0)], [op_range(base)])])
    inner = nested.responses[1].response_txn
    assert inner.succeeded, "a nested guard sees the state before the transaction"
    assert inner.responses[0].response_range.kvs[0].value == b"1"
    before = client.range(base).header.revision
    read = client.txn([created(base, 0)], [], [op_range(base), op_range(base + b"none")])
    assert [answer.response_range.count for answer in read.responses] == [1, 0]
    assert read.header.revision >= before
    assert client.txn().succeeded, "a txn without operations is a read"


def test_txn_refusals(client: Client, base: bytes) -> None:
    with raises(errors.TOO_MANY_OPS):
        client.txn([], [op_range(base)] * 129)
    with raises(errors.DUPLICATE_KEY):
        client.txn([], [op_put(base), op_put(base)])
    with raises(errors.EMPTY_KEY):
        client.txn([created(b"", 0)])
    with raises(errors.KEY_NOT_FOUND):
        client.txn([], [rpc_pb2.RequestOp()])
    with raises(errors.LEASE_NOT_FOUND):
        client.txn([], [op_put(base, lease=2**61)])
    client.txn([], [], [op_put(base, lease=2**61)])  # in the branch not taken: fine
    with raises(errors.FUTURE_REVISION):
        client.txn([], [op_put(base), op_range(base, revision=2**40)])
    assert client.range(base).count == 0, "a refused transaction changed nothing"


# Watches


def test_watch_sees_puts_and_deletes_in_order(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base, end(base), prev_kv=True))
    first = stream.receive()
    assert first.created
    assert (first.watch_id, first.canceled) == (0, False)
    assert first.header.revision > 0
    put = client.put(base + b"a", b"1").header.revision
    client.put(base + b"a", b"2")
    client.delete(base + b"a")
    one, two, three = (stream.receive() for _ in range(3))
    assert event(one) == (0, base + b"a", b"1")
    assert one.header.revision == put
    assert two.events[0].prev_kv.value == b"1"
    assert three.events[0].type == 1
    gone = three.events[0].kv
    assert (gone.mod_revision, gone.create_revision, gone.version) == (put + 2, 0, 0)
    stream.cancel()


def test_watch_replays_history_then_goes_live(client: Client, base: bytes) -> None:
    start = client.put(base, b"1").header.revision
    client.put(base, b"2")
    stream = client.watch_stream()
    stream.send(create(base, start_revision=start))
    assert stream.receive().created
    values: list[bytes] = []
    while len(values) < 2:
        values += [one.kv.value for one in stream.receive().events]
    client.put(base, b"3")
    assert values == [b"1", b"2"]
    assert event(stream.receive())[2] == b"3"
    stream.cancel()


def test_one_transaction_is_one_response(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base, end(base)))
    stream.receive()
    client.txn([], [op_put(base + b"%d" % number) for number in range(5)])
    response = stream.receive()
    assert len(response.events) == 5
    assert len({one.kv.mod_revision for one in response.events}) == 1
    stream.cancel()


def test_watch_filters_cancel_and_ids(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base, filters=[0], watch_id=7))
    assert stream.receive().watch_id == 7
    stream.send(create(base, filters=[1]))
    other = stream.receive().watch_id
    assert other != 7
    stream.send(create(base, watch_id=7))
    refused = stream.receive()
    assert refused.created
    assert refused.canceled
    assert refused.watch_id == -1
    client.put(base, b"1")
    assert stream.receive().watch_id == other
    client.delete(base)
    assert stream.receive().watch_id == 7
    stream.send(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=7)))
    canceled = stream.receive()
    assert canceled.canceled
    assert (canceled.watch_id, canceled.cancel_reason) == (7, "")
    stream.cancel()


def test_bad_watches_leave_the_stream_alive(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base + b"b", base + b"a"))
    refused = stream.receive()
    assert refused.created
    assert refused.canceled
    assert refused.watch_id == -1
    assert refused.cancel_reason == "mvcc: watcher range is empty"
    stream.send(create(base))
    assert not stream.receive().canceled
    client.put(base, b"alive")
    assert event(stream.receive())[2] == b"alive"
    stream.cancel()


def test_watch_below_the_compaction_is_created_then_canceled(client: Client, base: bytes) -> None:
    old = client.put(base, b"1").header.revision
    new = client.put(base, b"2").header.revision
    client.compact(new)
    stream = client.watch_stream()
    stream.send(create(base, start_revision=old))
    assert stream.receive().created
    canceled = stream.receive()
    assert canceled.canceled
    assert canceled.compact_revision >= new
    assert (canceled.header.revision, canceled.cancel_reason) == (0, "")
    stream.cancel()


def test_progress_request(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base))
    stream.receive()
    revision = client.put(base + b"other").header.revision
    stream.send(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))
    mark = stream.receive()
    assert mark.watch_id == -1
    assert mark.header.revision >= revision
    assert not mark.events
    stream.cancel()


def test_half_closed_watch_goes_on(client: Client, base: bytes) -> None:
    stream = client.watch_stream()
    stream.send(create(base))
    stream.receive()
    stream.finish()
    time.sleep(0.1)
    client.put(base, b"still here")
    assert event(stream.receive())[2] == b"still here"
    stream.cancel()


# Leases


def test_lease_life(client: Client, base: bytes) -> None:
    granted = client.grant(60)
    assert granted.ID > 0
    assert granted.TTL == 60
    assert granted.error == ""
    client.put(base, b"x", lease=granted.ID)
    times = client.time_to_live(granted.ID, keys=True)
    assert 55 <= times.TTL <= 60
    assert times.grantedTTL == 60
    assert list(times.keys) == [base]
    assert granted.ID in [lease.ID for lease in client.leases().leases]
    client.revoke(granted.ID)
    assert client.range(base).count == 0
    with raises(errors.LEASE_NOT_FOUND):
        client.revoke(granted.ID)
    gone = client.time_to_live(granted.ID)
    assert (gone.TTL, gone.grantedTTL, gone.ID) == (-1, 0, granted.ID)


def test_lease_refusals_and_minimum(client: Client) -> None:
    lease_id = int(time.time() * 1e6)
    assert client.grant(0, lease_id).TTL == 2, "raised to the minimum"
    with raises(errors.LEASE_EXISTS):
        client.grant(10, lease_id)
    with raises(errors.LEASE_TTL_TOO_LARGE):
        client.grant(9_000_000_001)
    client.revoke(lease_id)


def test_keep_alive_answers_in_order_and_a_dead_lease_is_ttl_0(client: Client) -> None:
    lease_id = client.grant(30).ID
    stream = client.keep_alive_stream()
    for asked in (lease_id, 12345, lease_id):
        stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=asked))
    answers = [stream.receive() for _ in range(3)]
    assert [(one.ID, one.TTL) for one in answers] == [
        (lease_id, 30),
        (12345, 0),
        (lease_id, 30),
    ]
    assert answers[0].header.revision > 0
    stream.finish()
    assert stream.receive() is None, "the stream ends well after the client's half"
    client.revoke(lease_id)


def test_expiry_deletes_the_key_and_tells_watchers(client: Client, base: bytes) -> None:
    lease_id = client.grant(1).ID
    stream = client.watch_stream()
    stream.send(create(base))
    stream.receive()
    client.put(base, b"x", lease=lease_id)
    assert stream.receive().events[0].type == 0
    assert stream.receive(timeout=6).events[0].type == 1
    stream.cancel()


# Locks and elections


def test_lock_passes_on_when_released(client: Client, base: bytes) -> None:
    name = base[:-1]
    first, second = client.grant(60).ID, client.grant(60).ID
    held = client.lock(name, first)
    assert held.key == name + b"/%x" % first
    assert held.header.revision > 0
    assert client.lock(name, first).key == held.key, "the same lease holds it already"
    won: list[Any] = []
    waiter = threading.Thread(target=lambda: won.append(client.lock(name, second)))
    waiter.start()
    time.sleep(0.15)
    assert not won
    client.unlock(held.key)
    waiter.join(5)
    assert won[0].key == name + b"/%x" % second
    client.unlock(won[0].key)
    assert client.range(base, end(base)).count == 0


def test_lock_given_up_leaves_the_line(client: Client, base: bytes) -> None:
    name = base[:-1]
    first, second = client.grant(60).ID, client.grant(60).ID
    client.lock(name, first)
    with pytest.raises(grpc.RpcError) as raised:
        client.lock(name, second, timeout=0.3)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    deadline = time.monotonic() + 5
    while client.range(base, end(base)).count != 1:
        assert time.monotonic() < deadline, "the key of the one that gave up stays"
        time.sleep(0.02)


def test_lock_is_lost_with_its_lease(client: Client, base: bytes) -> None:
    name = base[:-1]
    first, second = client.grant(60).ID, client.grant(60).ID
    client.lock(name, first)
    outcome: list[Any] = []

    def wait() -> None:
        try:
            client.lock(name, second)
        except grpc.RpcError as error:
            outcome.append(error.details())

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.15)
    client.revoke(second)
    client.revoke(first)
    waiter.join(5)
    assert outcome == [errors.MUTEX_SESSION_EXPIRED.message]


def test_lock_without_lease_gets_one_of_a_minute(client: Client, base: bytes) -> None:
    key = client.lock(base[:-1]).key
    lease_id = int(key.rpartition(b"/")[2], 16)
    assert client.time_to_live(lease_id).grantedTTL == 60
    client.revoke(lease_id)


def test_election(client: Client, base: bytes) -> None:
    name = base[:-1]
    with raises(errors.ELECTION_NO_LEADER):
        client.election("Leader", name=name)
    first, second = client.grant(60).ID, client.grant(60).ID
    observed = client.observe(name)
    won = client.election("Campaign", name=name, lease=first, value=b"one")
    assert won.leader.key == name + b"/%x" % first
    assert won.leader.lease == first
    assert client.election("Leader", name=name).kv.value == b"one"
    assert next(observed).kv.value == b"one"
    later: list[Any] = []
    waiter = threading.Thread(
        target=lambda: later.append(
            client.election("Campaign", name=name, lease=second, value=b"two")
        )
    )
    waiter.start()
    client.election("Proclaim", leader=won.leader, value=b"one again")
    assert next(observed).kv.value == b"one again"
    assert not later
    client.election("Resign", leader=won.leader)
    waiter.join(5)
    assert later[0].leader.key == name + b"/%x" % second
    assert next(observed).kv.value == b"two"
    observed.cancel()
    with raises(errors.ELECTION_NOT_LEADER):
        client.election("Proclaim", leader=won.leader, value=b"late")
    client.election("Resign", leader=won.leader)  # no effect, no error
    assert client.election("Leader", name=name).kv.value == b"two"
    with raises(errors.ELECTION_LEADER_FIELD):
        client.election("Proclaim", value=b"x")


def test_campaign_again_with_another_value_proclaims(client: Client, base: bytes) -> None:
    lease_id = client.grant(60).ID
    name = base[:-1]
    first = client.election("Campaign", name=name, lease=lease_id, value=b"1")
    again = client.election("Campaign", name=name, lease=lease_id, value=b"2")
    assert isinstance(first.leader, v3election_pb2.LeaderKey)
    assert again.leader == first.leader
    assert client.election("Leader", name=name).kv.value == b"2"


# Members and maintenance


def test_members_and_status(client: Client) -> None:
    members = client.cluster("MemberList", linearizable=True)
    assert members.header.revision == 0
    assert members.header.member_id in [member.ID for member in members.members]
    status = client.maintenance("Status")
    assert status.leader in [member.ID for member in members.members]
    assert status.header.member_id == members.header.member_id
    assert status.version.startswith("3.6")
    assert status.HasField("downgradeInfo")
    with raises(errors.MEMBER_BAD_URLS):
        client.cluster("MemberAdd", peerURLs=["nonsense"])
    with raises(errors.MEMBER_NOT_FOUND):
        client.cluster("MemberRemove", ID=12345)


def test_hash_alarms_and_empty_answers(client: Client, base: bytes) -> None:
    client.put(base)
    hashed = client.maintenance("HashKV")
    assert hashed.hash_revision == hashed.header.revision
    assert client.maintenance("HashKV", revision=hashed.hash_revision).hash == hashed.hash
    assert not client.maintenance("Alarm").alarms
    assert not client.maintenance("Defragment").HasField("header")
    status = client.maintenance("Status")
    leads = status.leader == status.header.member_id
    with raises(errors.BAD_LEADER_TRANSFEREE if leads else errors.NOT_LEADER):
        client.maintenance("MoveLeader", targetID=4711)


def test_auth_is_off(client: Client) -> None:
    path = "/etcdserverpb.Auth/"
    status = client.unary(
        path + "AuthStatus", rpc_pb2.AuthStatusRequest(), rpc_pb2.AuthStatusResponse
    )
    assert (status.enabled, status.authRevision) == (False, 1)
    with raises(errors.AUTH_NOT_ENABLED):
        client.unary(
            path + "Authenticate",
            rpc_pb2.AuthenticateRequest(name="root", password="x"),
            rpc_pb2.AuthenticateResponse,
        )
    with pytest.raises(grpc.RpcError) as raised:
        client.unary(
            path + "UserAdd", rpc_pb2.AuthUserAddRequest(name="u"), rpc_pb2.AuthUserAddResponse
        )
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "authentication stays off" in raised.value.details()
