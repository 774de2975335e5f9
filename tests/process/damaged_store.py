"""Opens damaged stores, each in a process of its own, since LMDB may die of what it reads.

    python -m tests.process.damaged_store

One command a line, answered by one line: a word that says what happened, and digests.
`read FILE` opens a store file, reads all of it, writes to it and reads it again.
`start DIRECTORY` starts a member on a data directory; it must put its state together.
Each command runs in a fork, so what it dies of ends nothing else.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from kvstore.machine import Machine, run
from kvstore.machine.command import CommandKind, encode
from kvstore.node.host import OsHost
from kvstore.pb import rpc_pb2
from kvstore.storage.errors import StorageError
from kvstore.storage.lmdb_store import LmdbStore
from raft.types import Entry, EntryKind
from tests.sim.solo import Solo, solo_config

PATIENCE_S = 20


def state_of(machine: Machine) -> str:
    """Two digests: HashKV, which members compare, and one over everything that can be read."""
    digest = hashlib.blake2b(digest_size=16)
    everything = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")
    with machine.view() as view:
        hash_kv = run(view.hash_kv(0))
        digest.update(repr((hash_kv, run(view.hash()), sorted(machine.leases))).encode())
        for revision in range(max(1, machine.compact_revision), machine.revision + 1, 7):
            everything.revision = revision
            digest.update(run(view.range(everything)).body)
        for change in view.changes(max(1, machine.compact_revision), machine.revision + 1):
            digest.update(repr(change).encode())
        for lease in sorted(machine.leases):
            digest.update(repr(run(view.lease_keys(lease))).encode())
    return f"{hash_kv.hash:x} {digest.hexdigest()}"


def write_more(machine: Machine) -> None:
    """Enough to use free pages, to split some, and to free others."""
    for number in range(40):
        key = b"key/%03d" % (number * 7 % 120)
        request = rpc_pb2.PutRequest(key=key, value=b"new" * (number * 13 % 300))
        data = encode(CommandKind.PUT, 1, request.SerializeToString())
        entry = Entry(machine.applied_index + 1, 9, EntryKind.NORMAL, data)
        batch = machine.begin([entry], ())
        while not batch.step():
            pass


def read(path: str) -> str:
    store = LmdbStore(Path(path), Machine.TABLES)
    machine = Machine(store)
    before = state_of(machine)
    write_more(machine)
    after = state_of(machine)
    store.close()
    return f"{before} {after}"


def start(directory: str) -> str:
    member = Solo(OsHost(), solo_config(Path(directory)), lambda entry: None)
    member.lead()
    answer = state_of(member.machine)
    member.stop()
    return answer


COMMANDS: dict[str, Callable[[str], str]] = {"read": read, "start": start}


def in_a_fork(command: str, path: str) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(PATIENCE_S)
        try:
            answer = f"done {COMMANDS[command](path)}"
        except StorageError as error:
            answer = f"refused {error}"
        except BaseException as error:
            answer = f"raised {error!r}"
        os.write(writing, answer.replace("\n", " ").encode()[:4000])
        os._exit(0)
    os.close(writing)
    answer = b""
    while piece := os.read(reading, 4096):
        answer += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hung" if number == signal.SIGALRM else f"died {signal.Signals(number).name}"
    return answer.decode(errors="replace")


def main() -> None:
    for line in sys.stdin:
        command, path = line.split()
        print(in_a_fork(command, path), flush=True)


if __name__ == "__main__":
    main()
