"""A member's data directory, and processes that read it: whole, with one bit flipped, repaired.

Run as a program it is given orders, one line of JSON each, and gives one line for each. It forks
for every order: LMDB may crash, and may walk in circles, on pages that make no sense.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvstore.machine import CommandKind, Machine, encode, run
from kvstore.machine.membership import Member
from kvstore.node.config import NodeConfig
from kvstore.node.files import MemberFiles
from kvstore.node.host import OsHost
from kvstore.node.recovery import recover
from kvstore.pb.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from kvstore.storage.errors import StorageError
from kvstore.storage.wal import WalIdentity
from raft.types import Entry, EntryKind, HardState
from tests.sim.prng import Prng

__all__ = ("HASH", "STATE_HASH", "Reading", "build", "read_all")

HASH: Final = "the hash that members compare"
STATE_HASH: Final = "hash of the whole state"

_PATIENCE_S: Final = 10
_COMPACTED: Final = 300
_KEYS: Final = 250
_CLUSTER, _MEMBER = 0xC, 0xA

Reading = dict[str, Any]
"""Everything that clients can read and members compare, by name."""


def _config(directory: Path) -> NodeConfig:
    url = ("http://localhost:2380",)
    return NodeConfig(
        name="a",
        data_dir=directory,
        listen_peer_urls=url,
        advertise_peer_urls=url,
        advertise_client_urls=(),
        initial_cluster={},
        wal_segment_bytes=256 * 1024,
        snapshot_catchup_entries=50,
    )


def build(directory: Path) -> None:
    """A data directory of a member that was stopped in order; all tables have records."""
    config = _config(directory)
    files = MemberFiles.lock(config, OsHost())
    files.begin()
    machine = Machine(files.open_store(), files.machine_config)
    machine.bootstrap([Member(_MEMBER, "a")], index=1, term=1)
    files.write_snapshot(_CLUSTER)
    wal = files.create_log(WalIdentity(_CLUSTER, _MEMBER), (1, 1), HardState(1, _MEMBER, 1))
    index = 1
    for number, (kind, request) in enumerate(_requests()):
        index += 1
        data = encode(kind, number + 1, request.SerializeToString())
        entries = [Entry(index, 1, EntryKind.NORMAL, data)]
        wal.write(wal.encode(HardState(1, _MEMBER, index), entries), False)
        batch = machine.begin(entries, ())
        while not batch.step():
            pass
        if number == 600:
            files.write_snapshot(_CLUSTER)
    while not machine.sweep():
        pass
    wal.close()
    files.close(clean=True)


def _requests() -> Iterator[tuple[CommandKind, Any]]:
    prng = Prng(3)
    for lease in range(1, 30):
        yield CommandKind.LEASE_GRANT, LeaseGrantRequest(ID=lease, TTL=1000 + lease)
    for number in range(900):
        key = _key(prng.below(_KEYS))
        size = prng.weighted(((12, 40), (2, 700), (1, 9000)))
        value = (b"value %d of " % number + key[:20] + b" ") * size
        lease = 1 + prng.below(29) if prng.chance(1, 3) else 0
        put = PutRequest(key=key, value=value[:size], lease=lease)
        kind = prng.below(10)
        if kind == 0:
            yield CommandKind.DELETE_RANGE, DeleteRangeRequest(key=key)
        elif kind == 1:
            other = PutRequest(key=_key(prng.below(_KEYS)) + b"/txn", value=b"two at once")
            parts = [RequestOp(request_put=put), RequestOp(request_put=other)]
            yield CommandKind.TXN, TxnRequest(success=parts)
        else:
            yield CommandKind.PUT, put
        if number == 500:
            yield CommandKind.COMPACT, CompactionRequest(revision=_COMPACTED)


def _key(number: int) -> bytes:
    """Some are longer than what a page of LMDB takes as a key."""
    return b"key %03d" % number + (b" long" * 120 if number % 25 == 0 else b"")


def read_all(machine: Machine) -> Reading:
    """What clients read (at several revisions, in several ways) and what members compare."""
    with machine.view() as view:
        reading: Reading = {"revision": machine.revision, "compact": machine.compact_revision}
        for revision in (0, _COMPACTED, _COMPACTED + 100, _COMPACTED + 300):
            everything = RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
            answer = run(view.range(everything)).body
            reading[f"range at {revision}"] = _digest(answer)
            everything.count_only = True
            reading[f"count at {revision}"] = _digest(run(view.range(everything)).body)
        for number in range(_KEYS):
            for key in (_key(number), _key(number) + b"/txn"):
                answer = run(view.range(RangeRequest(key=key))).body
                reading[f"get {key[:16]!r} {len(key)}"] = _digest(answer)
        reading["leases"] = sorted((lease.id, lease.ttl_s) for lease in machine.leases.values())
        for lease in range(1, 30):
            reading[f"keys of lease {lease}"] = [key.hex() for key in view.lease_keys(lease)]
        reading["members"] = sorted(machine.members)
        changes = view.changes(_COMPACTED + 1, machine.revision + 1)
        reading["changes"] = _digest(repr(list(changes)).encode())
        reading[HASH] = run(view.hash_kv(0)).hash
        reading[STATE_HASH] = run(view.hash())
    return json.loads(json.dumps(reading))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read(directory: Path) -> Reading:
    """What a member that starts on the store as it is would serve. Damage condemns the store."""
    files = MemberFiles.lock(_config(directory), OsHost())
    assert files.store_trusted()
    where = "start"
    try:
        machine = Machine(files.open_store(), files.machine_config)
        where = "read"
        reading = read_all(machine)
    except StorageError as error:
        if where == "read":
            files.condemn_store()  # at the start, recovery does the like
        return {"outcome": f"noticed at the {where}", "why": f"{type(error).__name__}: {error}"}
    return {"outcome": "read", "reading": reading}


def _restart(directory: Path) -> Reading:
    """What a member serves after a start with everything that belongs to it."""
    config = _config(directory)
    files = MemberFiles.lock(config, OsHost())
    _, start, machine = recover(files, config)
    left = [entry for entry in start.entries if entry.index > machine.applied_index]
    if left:
        batch = machine.begin(left, ())
        while not batch.step():
            pass
    while not machine.sweep():
        pass
    return {"outcome": "read", "reading": read_all(machine), "applied again": len(left)}


def _in_a_child(order: dict[str, str]) -> Reading:
    """Obeys in a process of its own, which may come to any end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(_PATIENCE_S)
        try:
            do = {"read": _read, "restart": _restart}[order["do"]]
            answer = do(Path(order["directory"]))
        except BaseException as error:
            answer = {"outcome": "failed", "why": f"{type(error).__name__}: {error}"}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0 and text:
        return json.loads(text)  # type: ignore[no-any-return]
    if status == -signal.SIGALRM:
        return {"outcome": "hung"}
    return {"outcome": "crashed", "why": signal.Signals(-status).name}


if __name__ == "__main__":
    logging.disable()
    for line in sys.stdin:
        print(json.dumps(_in_a_child(json.loads(line))), flush=True)
