"""Targets: what a hostile server answers to our client, and what our commands print of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import DecodeError

from kvstore.cli.exits import CliError
from kvstore.cli.printers import FORMS, Printer
from kvstore.client import operations, recipes
from kvstore.client.call import Unary
from kvstore.client.errors import KvError, from_status
from kvstore.client.keepalive import KeepAliveSchedule
from kvstore.client.recipes import Bounded, claim, disarm, health, leader, move_leader
from kvstore.client.snapshots import SnapshotCheck
from kvstore.client.txn import Get, Put, Txn
from kvstore.client.values import AlarmType
from kvstore.client.watching import WatchCursor
from kvstore.pb import kv_pb2
from kvstore.pb import rpc_pb2 as pb
from tests.fuzz.protobuf import WORDS, mender
from tests.fuzz.registry import Feed, Target, plain

__all__ = ("TARGETS",)

_HEADER = pb.ResponseHeader(cluster_id=1, member_id=2**63, revision=9, raft_term=3)
_PAIR = kv_pb2.KeyValue(
    key=b"k", value=b"v\xff\n", create_revision=3, mod_revision=9, version=2, lease=7
)
_MEMBER = pb.Member(ID=2**63, name="n", peerURLs=["http://a:1"], clientURLs=["http://a:2"])


def _txn_response() -> pb.TxnResponse:
    answer = pb.TxnResponse(header=_HEADER, succeeded=True)
    answer.responses.add().response_put.header.CopyFrom(_HEADER)
    answer.responses.add().response_range.kvs.add().CopyFrom(_PAIR)
    answer.responses.add().response_delete_range.deleted = 1
    answer.responses.add().response_txn.responses.add().response_range.count = 1
    return answer


_ANSWERS: dict[str, Any] = {
    "get": pb.RangeResponse(header=_HEADER, kvs=[_PAIR, _PAIR], more=True, count=2),
    "put": pb.PutResponse(header=_HEADER, prev_kv=_PAIR),
    "del": pb.DeleteRangeResponse(header=_HEADER, deleted=1, prev_kvs=[_PAIR]),
    "txn": _txn_response(),
    "compaction": pb.CompactionResponse(header=_HEADER),
    "grant": pb.LeaseGrantResponse(header=_HEADER, ID=7, TTL=60),
    "revoke": pb.LeaseRevokeResponse(header=_HEADER),
    "keep_alive": pb.LeaseKeepAliveResponse(header=_HEADER, ID=7, TTL=60),
    "time_to_live": pb.LeaseTimeToLiveResponse(
        header=_HEADER, ID=7, TTL=59, grantedTTL=60, keys=[b"k"]
    ),
    "leases": pb.LeaseLeasesResponse(header=_HEADER, leases=[pb.LeaseStatus(ID=7)]),
    "alarms": pb.AlarmResponse(header=_HEADER, alarms=[pb.AlarmMember(memberID=1, alarm=1)]),  # type: ignore[arg-type]
    "members": pb.MemberListResponse(header=_HEADER, members=[_MEMBER]),
    "member_add": pb.MemberAddResponse(header=_HEADER, member=_MEMBER, members=[_MEMBER]),
    "member_remove": pb.MemberRemoveResponse(header=_HEADER, members=[_MEMBER]),
    "member_update": pb.MemberUpdateResponse(header=_HEADER, members=[_MEMBER]),
    "member_promote": pb.MemberPromoteResponse(header=_HEADER, members=[_MEMBER]),
    "status": pb.StatusResponse(
        header=_HEADER, version="3.6.0", dbSize=4096, leader=2**63, raftTerm=3, errors=["bad"]
    ),
    "hash": pb.HashKVResponse(header=_HEADER, hash=2**32 - 1, compact_revision=3),
    "watch": pb.WatchResponse(
        header=_HEADER,
        events=[kv_pb2.Event(kv=_PAIR, prev_kv=_PAIR), kv_pb2.Event(type=1, kv=_PAIR)],  # type: ignore[arg-type]
    ),
    "move_leader": pb.MoveLeaderResponse(header=_HEADER),
    "defragment": pb.DefragmentResponse(header=_HEADER),
    "authenticate": pb.AuthenticateResponse(header=_HEADER, token="t"),
}
"""A good answer to each kind of call, as the printers call them."""


def _calls() -> dict[str, list[Unary[Any]]]:
    """The client's calls by what they are answered with."""
    txn = Txn().then(Put("k", "v"), Get("k"))
    return {
        "get": [operations.get("k"), operations.range("k", prefix=True), leader("e")],
        "put": [operations.put("k", "v")],
        "del": [operations.delete("k")],
        "txn": [txn.build()],
        "compaction": [operations.compact(3)],
        "grant": [operations.lease_grant(60)],
        "revoke": [operations.lease_revoke(7)],
        "keep_alive": [operations.keep_alive_once(7)],
        "time_to_live": [operations.lease_time_to_live(7)],
        "leases": [operations.leases()],
        "alarms": [operations.alarms()],
        "members": [operations.member_list()],
        "member_add": [operations.member_add(["http://a:1"])],
        "member_remove": [operations.member_remove(1)],
        "member_update": [operations.member_update(1, ["http://a:1"])],
        "member_promote": [operations.member_promote(1)],
        "status": [operations.status(endpoint="a")],
        "hash": [operations.hash_kv()],
        "move_leader": [operations.move_leader_at("a", 1)],
        "defragment": [operations.defragment()],
        "authenticate": [operations.authenticate("u", "p")],
    }


_IN_WORDS: dict[str, dict[str, Any]] = {
    "compaction": {"revision": 3},
    "revoke": {"lease_id": 7},
    "time_to_live": {"keys": True},
    "member_remove": {"member_id": 1},
    "member_update": {"member_id": 1},
    "member_promote": {"member_id": 1},
}
"""What the simple form says besides the answer."""


def _answer(kind: str) -> Feed:
    """An answer's bytes to the values that the caller gets, and to every form of output."""
    message = type(_ANSWERS[kind])
    calls = _calls().get(kind, [])

    def feed(data: bytes) -> None:
        answer = message.FromString(data)
        for call in calls:
            call.convert(answer)
        shown: Any = [("endpoint", answer)] if kind in ("status", "hash") else answer
        for form in FORMS:
            for hexadecimal in (False, True):
                _show(Printer(form, hex=hexadecimal), kind, shown)

    return feed


def _show(printer: Printer, kind: str, answer: Any) -> None:
    details = _IN_WORDS.get(kind, {}) if printer.form == "simple" else {}
    if kind == "move_leader" and printer.form == "simple":
        answer = (1, answer.header.member_id)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(CliError):
        printer.show(kind, answer, **details)


# ---- streams ------------------------------------------------------------------------------------


def _split(data: bytes) -> list[bytes]:
    """The messages of a stream: a mark between them that no seed has inside."""
    return data.split(b"\xfe\xfd")


def _joined(*messages: Any) -> bytes:
    return b"\xfe\xfd".join(each.SerializeToString() for each in messages)


def _feed_watch(data: bytes) -> None:
    """A watch's stream; a response that goes back must never reach the reader."""
    cursor = WatchCursor(pb.WatchCreateRequest(key=b"k", start_revision=4))
    cursor.open_request()
    last = 0
    for piece in _split(data):
        before = cursor.next_revision
        found = cursor.feed(pb.WatchResponse.FromString(piece))
        if found is not None and not found.is_progress:
            assert all(event.kv.mod_revision >= before for event in found.events)
            last = max(last, found.revision)
    cursor.open_request()


def _watch_seeds() -> list[bytes]:
    created = pb.WatchResponse(header=_HEADER, created=True)
    event = kv_pb2.Event(kv=_PAIR)
    fragment = pb.WatchResponse(header=_HEADER, events=[event], fragment=True)
    last = pb.WatchResponse(header=_HEADER, events=[event])
    progress = pb.WatchResponse(header=_HEADER)
    over = pb.WatchResponse(header=_HEADER, canceled=True, cancel_reason="no")
    compacted = pb.WatchResponse(canceled=True, compact_revision=7)
    return [
        _joined(created, last, progress),
        _joined(created, fragment, fragment, last),
        _joined(created, over),
        _joined(compacted),
    ]


def _feed_snapshot(data: bytes) -> None:
    check = SnapshotCheck()
    for piece in _split(data):
        check.feed(pb.SnapshotResponse.FromString(piece))
    check.finish()


def _snapshot_seeds() -> list[bytes]:
    import hashlib

    content = bytes(1024)
    content += hashlib.sha256(content).digest()
    whole = pb.SnapshotResponse(blob=content, version="3.6.0")
    first = pb.SnapshotResponse(blob=content[:600], remaining_bytes=len(content) - 600)
    return [_joined(whole), _joined(first, pb.SnapshotResponse(blob=content[600:]))]


def _feed_keep_alive(data: bytes) -> None:
    schedule = KeepAliveSchedule()
    schedule.add(7, 60, 0.0)
    for number, piece in enumerate(_split(data)):
        answer = pb.LeaseKeepAliveResponse.FromString(piece)
        schedule.take_due(100.0 * number)
        schedule.renewed(7, answer.TTL, 100.0 * number)
        schedule.next_wake()
        schedule.expired(100.0 * number + 50)


# ---- procedures of several calls ----------------------------------------------------------------


def _feed_recipes(data: bytes) -> None:
    """Locks, elections and maintenance with these answers, over and over, to their steps."""
    pieces = _split(data)
    programs: Sequence[Callable[[], Any]] = (
        lambda: claim("lock", 7),
        *_holders(),
        lambda: health("a", None, lambda: 0.0),
        lambda: disarm(AlarmType.NONE, 0, None),
        lambda: move_leader(["a", "b"], 1, None),
    )
    refusals = [_ran(program(), pieces) for program in programs]
    first = next((each for each in refusals if each is not None), None)
    if all(refusals) and first is not None:
        raise first


def _holders() -> list[Callable[[], Any]]:
    """Recipes on a lease that is there already, each new every time."""

    def clock() -> float:
        return 0.0

    lease: Any = SimpleNamespace(id=7, lost=False)
    held: dict[str, Any] = {"ttl": 60, "lease": lease}
    return [
        lambda: recipes.WriteLockRecipe("rw", clock, **held).acquire(),
        lambda: recipes.SemaphoreRecipe("s", clock, max_leases=2, **held).acquire(),
        lambda: recipes.DoubleBarrierRecipe("b", clock, count=2, **held).begin(),
        lambda: recipes.QueueRecipe("q", clock, **held).get(),
        lambda: recipes.LockingQueueRecipe("q", clock, **held).get(),
        lambda: recipes.QueueRecipe("q", clock, **held).put("v"),
        lambda: recipes.CounterRecipe("c").add(1),
        lambda: recipes.PartyRecipe("p", clock, **held).join(),
        lambda: recipes.read_tree(b"t/"),
        lambda: _partitioned(recipes.PartitionerRecipe("i", clock, items=["a", "b"], **held)),
    ]


def _partitioned(partitioner: recipes.PartitionerRecipe) -> Any:
    yield from partitioner.join()
    yield from partitioner.acquire()
    yield from partitioner.release()


def _ran(program: Any, pieces: list[bytes]) -> Exception | None:
    sent: Any = None
    for number in range(12):
        try:
            step = program.send(sent)
        except StopIteration:
            return None
        except (KvError, DecodeError) as error:
            return error
        sent = None
        while isinstance(step, Bounded):
            step = step.step
        if isinstance(step, Unary):
            try:
                answer = step.method.response.FromString(pieces[number % len(pieces)])
            except DecodeError as error:
                return error
            sent = step.convert(answer)
    program.close()
    return None


def _recipe_seeds() -> list[bytes]:
    answers = _ANSWERS
    queue = pb.TxnResponse(header=_HEADER, succeeded=True)
    queue.responses.add().response_put.header.CopyFrom(_HEADER)
    queue.responses.add().response_range.kvs.add().CopyFrom(_PAIR)
    return [
        _joined(queue, pb.RangeResponse(header=_HEADER)),
        _joined(answers["get"], answers["alarms"]),
        _joined(answers["alarms"]),
        _joined(answers["status"], answers["move_leader"]),
        b"",
    ]


def _feed_status(data: bytes) -> None:
    """A code and a message, as the end of any call has them."""
    if not data:
        return  # the call has ended well
    error = from_status(data[0] % 16 + 1, data[1:].decode("utf-8", "replace"), write=True)
    raise error


def _mend_each(message: Any) -> Callable[[bytes], bytes]:
    mend = mender(message)
    return lambda data: b"\xfe\xfd".join(map(mend, _split(data)))


def _stream(name: str, feed: Feed, seeds: Callable[[], list[bytes]], message: Any) -> Target:
    return Target(
        name,
        plain(feed),
        (KvError, DecodeError),
        seeds,
        (*WORDS, b"\xfe\xfd"),
        mend=None if message is None else _mend_each(message),
        cost=2,
        refuses=name != "",
    )


TARGETS = (
    *(
        Target(
            f"answer {kind}",
            plain(_answer(kind)),
            (KvError, DecodeError),
            lambda kind=kind: [_ANSWERS[kind].SerializeToString(), b""],  # type: ignore[misc]
            WORDS,
            mend=mender(type(_ANSWERS[kind])),
            cost=10,
        )
        for kind in _ANSWERS
    ),
    _stream("watch stream", _feed_watch, _watch_seeds, pb.WatchResponse),
    _stream("snapshot stream", _feed_snapshot, _snapshot_seeds, pb.SnapshotResponse),
    _stream(
        "keep-alive stream",
        _feed_keep_alive,
        lambda: [_joined(_ANSWERS["keep_alive"], _ANSWERS["keep_alive"])],
        pb.LeaseKeepAliveResponse,
    ),
    _stream("recipes", _feed_recipes, _recipe_seeds, pb.TxnResponse),
    Target(
        "status of a call",
        plain(_feed_status),
        (KvError,),
        lambda: [b"\x0eetcdserver: no leader", b"\x02raft proposal dropped", b"\0", b"\x0bx"],
        (b"rpc error: code = X desc = ", b"etcdserver: ", b"failed to connect to all addresses"),
        cost=4,
    ),
)
