"""One store's client under one load, in a process of its own: a task from stdin, what came of it.

A PySyncObj store has no server: its "client" is the member whose process makes the calls, and the
other members are workers that are told to `serve`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.clients.faces import Face
from benchmarks.clients.worker import Task, blocking_calls, key_of, value_of

__all__ = ("LOADS", "PeerTask", "face_of")

LOADS = ("put", "put-pipelined", "get", "get-pipelined", "get-local", "get-local-pipelined")
"""`get` sees every write that was finished before; `get-local` what the member asked has."""
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class PeerTask:
    """What is to be done, and where the store is."""

    store: str
    """"kvstore", "zookeeper" or "pysyncobj"."""
    calls: Task
    members: tuple[int, ...] = ()
    """PySyncObj: the ports of all, this one's first."""
    journal: str = ""
    """PySyncObj: this member's file."""
    serve: bool = False

    @classmethod
    def loads(cls, text: str) -> PeerTask:
        value = json.loads(text)
        return cls(**{**value, "calls": Task(**value["calls"]), "members": tuple(value["members"])})


class _Kvstore(Face):
    """Ours; `local` reads are serializable ones."""

    def __init__(self, port: int, *, local: bool) -> None:
        super().__init__("127.0.0.1", port)
        self._local = local

    def get(self, key: bytes) -> bytes:
        if not self._local:
            return super().get(key)
        return bytes(self.client.range(key, serializable=True).kvs[0].value)


class _ZooKeeper(Face):
    """Through `kazoo`. A read that must see all writes needs `sync` before it."""

    def __init__(self, port: int, *, local: bool) -> None:
        self.client = importlib.import_module("kazoo.client").KazooClient(f"127.0.0.1:{port}")
        self.client.start(timeout=READY_S)
        self._local = local

    def fill(self, keys: int, value: bytes) -> None:
        for number in range(keys):
            path = self._path(key_of(number))
            if not self.client.exists(path):
                self.client.create(path, value, makepath=True)

    def put(self, key: bytes, value: bytes) -> None:
        self.client.set(self._path(key), value)

    def get(self, key: bytes) -> bytes:
        path = self._path(key)
        if not self._local:
            self.client.sync(path)
        value, _ = self.client.get(path)
        return bytes(value)

    def close(self) -> None:
        self.client.stop()
        self.client.close()

    @staticmethod
    def _path(key: bytes) -> str:
        return "/" + key.decode()


class _PySyncObj(Face):
    """A member: puts go through its log, reads are of its own memory."""

    def __init__(self, members: tuple[int, ...], journal: str) -> None:
        module = importlib.import_module("pysyncobj")
        self._map: Any = importlib.import_module("pysyncobj.batteries").ReplDict()
        own, *others = (f"127.0.0.1:{port}" for port in members)
        # It never sees a compaction here: its journal is removed with the run.
        settings = module.SyncObjConf(journalFile=journal, logCompactionMinEntries=10**9)
        self.client = module.SyncObj(own, others, conf=settings, consumers=[self._map])
        deadline = time.monotonic() + READY_S
        while not self.client.isReady():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the members did not agree in {READY_S:.0f} s")
            time.sleep(0.01)

    def fill(self, keys: int, value: bytes) -> None:
        # By hundreds: each call waits for a turn of the member's loop.
        for first in range(0, keys, 100):
            part = {key_of(number): value for number in range(first, min(keys, first + 100))}
            self._map.update(part, sync=True, timeout=READY_S)

    def put(self, key: bytes, value: bytes) -> None:
        self._map.set(key, value, sync=True, timeout=READY_S)

    def get(self, key: bytes) -> bytes:
        return bytes(self._map[key])

    def close(self) -> None:
        self.client.destroy()


def face_of(task: PeerTask) -> Face:
    """The store's client, with the keys in the store."""
    local = task.calls.load.startswith("get-local")
    if task.store == "kvstore":
        return _Kvstore(task.calls.port, local=local)
    if task.store == "zookeeper":
        zookeeper = _ZooKeeper(task.calls.port, local=local)
        zookeeper.fill(task.calls.keys, value_of(task.calls.value_bytes))
        return zookeeper
    member = _PySyncObj(task.members, task.journal)
    if not task.serve:
        member.fill(task.calls.keys, value_of(task.calls.value_bytes))
    return member


def main() -> None:
    task = PeerTask.loads(sys.stdin.readline())
    if task.serve:
        _PySyncObj(task.members, task.journal)
        # Until whoever started it closes the pipe.
        sys.stdin.read()
    else:
        face = face_of(task)
        came = blocking_calls(task.calls, face)
        print(json.dumps(asdict(came)), flush=True)
        face.close()
    if task.journal:
        Path(task.journal).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
