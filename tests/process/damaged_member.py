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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from kvstore.errors import EtcdError
from kvstore.machine import CommandKind, Machine, View, encode, run
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

__all__ = ("HASH", "NOTICED", "STATE_HASH", "Reading", "build", "read_all")

HASH: Final = "the hash that members compare"
STATE_HASH: Final = "hash of the whole state"
NOTICED: Final = "noticed"

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
    """What clients read (at several revisions, in several ways) and what members compare.

    Each by itself: a reading that is refused as damage stands there as NOTICED.
    """
    reading: Reading = {"revision": machine.revision, "compact": machine.compact_revision}
    for name, read in _readings(machine):
        try:
            with machine.view() as view:
                reading[name] = read(view)
        except StorageError:
            reading[name] = NOTICED
        except EtcdError as error:
            reading[name] = f"refused: {error}"
    return json.loads(json.dumps(reading))  # type: ignore[no-any-return]


def _readings(machine: Machine) -> Iterator[tuple[str, Callable[[View], Any]]]:
    for number in range(_KEYS):
        for key in (_key(number), _key(number) + b"/txn"):
            for revision in (0, _COMPACTED + 100):
                point = RangeRequest(key=key, revision=revision)
                name = f"get of {key[:16]!r}, {len(key)} bytes, at {revision}"
                yield name, lambda view, point=point: _digest(run(view.range(point)).body)
    for revision in (0, _COMPACTED, _COMPACTED + 100, _COMPACTED + 300):
        for count in (False, True):
            span = RangeRequest(key=b"\0", range_end=b"\0", revision=revision, count_only=count)
            name = f"{'count' if count else 'range'} at {revision}"
            yield name, lambda view, span=span: _digest(run(view.range(span)).body)
    for lease in range(1, 30):
        name = f"keys of lease {lease}"
        yield name, lambda view, lease=lease: [key.hex() for key in run(view.lease_keys(lease))]
    stop = machine.revision + 1
    yield "changes", lambda view: _digest(repr(list(view.changes(_COMPACTED + 1, stop))).encode())
    leases = sorted((lease.id, lease.ttl_s) for lease in machine.leases.values())
    yield "leases", lambda view: leases
    yield "members", lambda view: sorted(machine.members)
    yield HASH, lambda view: run(view.hash_kv(0)).hash
    yield STATE_HASH, lambda view: run(view.hash())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read(directory: Path) -> Reading:
    """What a member that starts on the store as it is would serve. Damage condemns the store."""
    files = MemberFiles.lock(_config(directory), OsHost())
    assert files.store_trusted()
    try:
        machine = Machine(files.open_store(), files.machine_config)
    except StorageError as error:
        return {"outcome": "refused", "why": f"{type(error).__name__}: {error}"}
    reading = read_all(machine)
    if NOTICED in reading.values():
        files.condemn_store()
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
