"""Golden output of the client commands: every kind of answer in every form.

A command line of the files is `FORM KIND`, or `FORM hex KIND`; the answers stand here.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore.cli.exits import CliError
from kvstore.cli.printers import Printer
from kvstore.client.values import EndpointHealth
from kvstore.node.restore import SnapshotStatus
from kvstore.pb import kv_pb2
from kvstore.pb import rpc_pb2 as pb
from tests.golden.runner import check

FILES = sorted((Path(__file__).parent / "cli").glob("*.txt"))

HEADER = pb.ResponseHeader(cluster_id=0xC1, member_id=2**63 + 1, revision=7, raft_term=2)
KV = kv_pb2.KeyValue(
    key=b'a"\xff', value=b"x\n<y>", create_revision=3, mod_revision=5, version=2, lease=0x1F
)
MEMBERS = [
    pb.Member(ID=0xA1, name="n1", peerURLs=["http://a:1", "http://a:2"], clientURLs=["http://a:3"]),
    pb.Member(ID=0xB2, peerURLs=["http://b:1"], isLearner=True),
]
STATUS = pb.StatusResponse(
    header=HEADER,
    version="3.6.0",
    dbSize=20480,
    leader=2**63 + 1,
    raftIndex=9,
    raftTerm=2,
    raftAppliedIndex=9,
    errors=["NOSPACE"],
)
RANGE = pb.RangeResponse(header=HEADER, kvs=[KV], more=True, count=2)
DELETE = pb.DeleteRangeResponse(header=HEADER, deleted=1, prev_kvs=[KV])
PUT = pb.PutResponse(header=HEADER, prev_kv=KV)
TXN = pb.TxnResponse(
    header=HEADER,
    responses=[
        pb.ResponseOp(response_range=RANGE),
        pb.ResponseOp(response_txn=pb.TxnResponse(succeeded=True)),
    ],
)
WATCH = pb.WatchResponse(
    header=HEADER,
    events=[
        kv_pb2.Event(kv=KV),
        kv_pb2.Event(type=kv_pb2.Event.DELETE, kv=kv_pb2.KeyValue(key=b"k"), prev_kv=KV),
    ],
)
ANSWERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "get": (RANGE, {}),
    "put": (PUT, {}),
    "del": (DELETE, {}),
    "txn": (TXN, {}),
    "watch": (WATCH, {}),
    "grant": (pb.LeaseGrantResponse(header=HEADER, ID=0x1F, TTL=60), {}),
    "revoke": (pb.LeaseRevokeResponse(header=HEADER), {"lease_id": 0x1F}),
    "keep_alive": (pb.LeaseKeepAliveResponse(header=HEADER, ID=0x1F, TTL=60), {}),
    "time_to_live": (
        pb.LeaseTimeToLiveResponse(
            header=HEADER, ID=0x1F, TTL=59, grantedTTL=60, keys=[b"a", b"b"]
        ),
        {"keys": True},
    ),
    "leases": (pb.LeaseLeasesResponse(header=HEADER, leases=[pb.LeaseStatus(ID=0x1F)]), {}),
    "alarms": (
        pb.AlarmResponse(
            header=HEADER, alarms=[pb.AlarmMember(memberID=0xA1, alarm=pb.AlarmType.NOSPACE)]
        ),
        {},
    ),
    "members": (pb.MemberListResponse(header=HEADER, members=MEMBERS), {}),
    "member_add": (
        pb.MemberAddResponse(header=HEADER, member=MEMBERS[1], members=MEMBERS),
        {},
    ),
    "member_remove": (
        pb.MemberRemoveResponse(header=HEADER, members=MEMBERS[:1]),
        {"member_id": 0xB2},
    ),
    "health": (
        [EndpointHealth("a:1", True, 0.0015, ""), EndpointHealth("b:1", False, 2.0, "down")],
        {},
    ),
    "status": ([("a:1", STATUS)], {}),
    "hash": ([("a:1", pb.HashKVResponse(header=HEADER, hash=77, compact_revision=-1))], {}),
    "snapshot_status": (SnapshotStatus(0xABC, 7, 9, 1_500_000), {}),
}


def execute(command: str) -> Iterator[str]:
    form, *hexed, kind = command.split()
    answer, details = ANSWERS[kind]
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out):
        try:
            printer = Printer(form, hex=bool(hexed))
            printer.show(kind, answer, **(details if form == "simple" else {}))
        except CliError as error:
            yield f"refused, exit {error.code}: {error.message}"
    raw = out.buffer.getvalue()  # type: ignore[attr-defined]  # it is the BytesIO from above
    for line in raw.decode(errors="backslashreplace").splitlines():
        yield f"|{line}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forms(path: Path) -> None:
    check(path, execute)


def test_every_kind_of_answer_is_in_every_file() -> None:
    for path in FILES:
        text = path.read_text()
        assert [kind for kind in ANSWERS if f" {kind}\n" not in text] == [], path
