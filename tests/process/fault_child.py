"""Members that die at armed fault points: a server of jobs that forks, so that none costs imports.

    python -m tests.process.fault_child

A job is a JSON object in one line on standard input; it runs in a process of its own, which says
in JSON lists what it does, and dies where it is told to. The last line of each job is
["ended", exit code] and comes from the parent, which survives.

    {"job": "live",    "directory": D, "faults": "wal.after_write=exit:3", "seed": 1}
    {"job": "join",    …}             two members over TCP, the second gets its state as a snapshot
    {"job": "settle",  …}             starts what is there, reads all of it, and stops in order
    {"job": "replay",  "directory": D, "seed": 123}   log and snapshots alone, up to entry 123
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kvstore import faults
from kvstore.errors import EtcdError
from kvstore.machine import CommandKind, Machine
from kvstore.node.config import NodeConfig
from kvstore.node.files import MemberFiles
from kvstore.node.host import OsHost
from kvstore.node.node import Node
from kvstore.node.peers import TcpNetwork
from kvstore.node.recovery import recover
from kvstore.pb import rpc_pb2
from kvstore.storage.errors import StorageError
from tests.unit.node.nodes import get, until
from tests.unit.serving.lonely import NoNetwork

KEYS = 24
VALUE_BYTES = 1500
TOGETHER = 6
"""Writes under way at once."""


def tell(*words: Any) -> None:
    """One line, past every buffer: it must be out before the next step can kill us."""
    os.write(1, json.dumps(words).encode() + b"\n")


def config(directory: Path, name: str, cluster: dict[str, str], state: str = "new") -> NodeConfig:
    """Everything small, so that segments are cut and snapshots are made within a second."""
    url = (cluster[name],)
    return NodeConfig(
        name=name,
        data_dir=directory / name,
        listen_peer_urls=url,
        advertise_peer_urls=url,
        advertise_client_urls=(f"http://{name}:2379",),
        initial_cluster={member: (url,) for member, url in cluster.items()},
        initial_cluster_state=state,
        heartbeat_ms=20,
        election_ms=200,
        wal_segment_bytes=64 * 1024,
        snapshot_catchup_entries=20,
        compaction_sleep_ms=0.0,
    )


def urls_of(directory: Path) -> dict[str, str]:
    """Where the two members of `join` are, in every life of this directory."""
    ports = json.loads((directory / "ports").read_text())
    return {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


def lonely(directory: Path) -> Node:
    return Node(config(directory, "a", {"a": "http://a:2380"}), network=NoNetwork())


# ---- traffic ----------------------------------------------------------------------------------


class Traffic:
    """Writes with values that occur once; says before and after each what it does."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node = node
        self._chance = random.Random(seed)
        self._seed = seed
        self._serial = 0

    async def burst(self, count: int) -> None:
        for _ in range(0, count, TOGETHER):
            await asyncio.gather(*(self._one() for _ in range(TOGETHER)))

    async def _one(self) -> None:
        chance = self._chance
        self._serial += 1
        name = f"{self._seed}-{self._serial}"
        kind = chance.random()
        if kind < 0.75:
            effects: dict[str, str | None] = {self._key(): self._value(name)}
            [(key, value)] = effects.items()
            work = CommandKind.PUT, rpc_pb2.PutRequest(key=key.encode(), value=value.encode())
        elif kind < 0.9:
            effects = {self._key(): None}
            [key] = effects
            work = CommandKind.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=key.encode())
        else:
            effects = {self._key(): self._value(f"{name}-{part}") for part in range(3)}
            puts = [
                rpc_pb2.RequestOp(
                    request_put=rpc_pb2.PutRequest(key=key.encode(), value=value.encode())
                )
                for key, value in effects.items()
            ]
            work = CommandKind.TXN, rpc_pb2.TxnRequest(success=puts)
        tell(
            "ask", name, {key: value and value.partition(" ")[0] for key, value in effects.items()}
        )
        try:
            result = await self._node.submit(work[0], work[1].SerializeToString())
        except EtcdError as error:
            tell("failed", name, error.message)
        else:
            tell("ack", name, result.revision)

    def _key(self) -> str:
        return f"k{self._chance.randrange(KEYS):02}"

    @staticmethod
    def _value(name: str) -> str:
        return f"{name} ".ljust(VALUE_BYTES, "v")


async def compact(node: Node, revision: int) -> None:
    if revision <= node.compact_revision:
        return
    request = rpc_pb2.CompactionRequest(revision=revision)
    await node.submit(CommandKind.COMPACT, request.SerializeToString())
    swept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    node.when_swept(lambda: swept.set_result(None))
    await swept


# ---- jobs -------------------------------------------------------------------------------------


async def live(directory: Path, seed: int) -> None:
    """A member's life in small: writing, snapshots, compaction, defragmentation, an orderly end."""
    node = lonely(directory)
    try:
        await node.start()
    except StorageError as error:
        tell("did not start", type(error).__name__, str(error))
        return
    await unless_it_ends(node, lead_a_life(node, seed))
    try:
        await node.stop()
    except StorageError as error:
        tell("did not stop in order", type(error).__name__, str(error))


async def lead_a_life(node: Node, seed: int) -> None:
    await until(lambda: node.is_leader)
    traffic = Traffic(node, seed)
    for _ in range(3):
        await traffic.burst(30)
        await attempt(node.running.snapshots.make())
        await traffic.burst(12)
        await attempt(compact(node, node.revision - 10))
        await attempt(node.defragment())
    await traffic.burst(6)


async def attempt(work: Awaitable[Any]) -> None:
    try:
        await work
    except (StorageError, EtcdError) as error:
        tell("refused", type(error).__name__, str(error))


async def join(directory: Path, seed: int) -> None:
    """A second member joins and gets the state as a snapshot; then both write."""
    urls = urls_of(directory)
    first = Node(config(directory, "a", {"a": urls["a"]}), network=TcpNetwork())
    await first.start()
    await until(lambda: first.leader_id)
    if len(first.machine.members) == 1:
        await Traffic(first, seed).burst(30)
        await first.member_add([urls["b"]], False)
    second = Node(config(directory, "b", urls, "existing"), network=TcpNetwork())
    await second.start()
    await until(lambda: first.leader_id == second.leader_id != 0)
    await until(lambda: second.machine.applied_index >= first.machine.applied_index)
    await asyncio.gather(Traffic(first, seed + 1).burst(12), Traffic(second, seed + 2).burst(12))
    await asyncio.gather(first.stop(), second.stop())


async def settle(directory: Path, seed: int) -> None:
    node = lonely(directory)
    await node.start()
    await until(lambda: node.is_leader)
    await report(node, "settled", seed)
    await node.stop()


async def settle_both(directory: Path, seed: int) -> None:
    urls = urls_of(directory)
    first = Node(config(directory, "a", {"a": urls["a"]}), network=TcpNetwork())
    await first.start()
    raft = first.running.core.raft
    # Alone it leads and applies all that its log holds, unless that says that it is not alone.
    await until(
        lambda: (
            len(first.machine.members) > 1
            or (first.is_leader and first.machine.applied_index == raft.last_index)
        )
    )
    nodes = [first]
    if len(first.machine.members) > 1:
        nodes.append(Node(config(directory, "b", urls, "existing"), network=TcpNetwork()))
        await nodes[1].start()
    await until(lambda: first.leader_id)
    await report(first, "settled", seed)
    if len(nodes) == 2:
        tell("both", await until(lambda: hashes_at_one_index(*nodes)))
    await asyncio.gather(*(node.stop() for node in nodes))


async def report(node: Node, word: str, seed: int) -> None:
    """Everything that can be read, then one more write: the member must be of use."""
    everything = await get(node, b"\0", range_end=b"\0")
    pairs = {
        kv.key.decode(): (kv.value.decode().partition(" ")[0], kv.mod_revision)
        for kv in everything.kvs
    }
    revision = node.revision
    put = rpc_pb2.PutRequest(key=b"last", value=b"%d" % seed)
    await node.submit(CommandKind.PUT, put.SerializeToString())
    tell(word, {"pairs": pairs, "revision": revision, "hashes": await hashes(node)})


async def hashes(node: Node) -> list[int]:
    """Of the history and of the whole state, and the index of the entry that they are behind."""
    while True:
        index = node.machine.applied_index
        answer = await node.hash_kv(0)
        taken = [answer.hash, answer.compact_revision, await node.hash(), node.revision, index]
        if node.machine.applied_index == index:
            return taken


async def hashes_at_one_index(one: Node, other: Node) -> list[list[int]] | None:
    """None while one has applied more than the other: they still announce themselves."""
    both = [await hashes(one), await hashes(other)]
    return both if both[0][-1] == both[1][-1] else None


def replay(directory: Path, index: int) -> None:
    """Log and snapshots alone: recovered, and everything up to this entry applied."""
    own = config(directory.parent, directory.name, {directory.name: "http://a:2380"})
    files = MemberFiles.lock(own, OsHost())
    wal, start, machine = recover(files, own)
    entries = [e for e in start.entries if machine.applied_index < e.index <= index]
    assert start.hard_state.commit >= index
    while entries:
        batch = machine.begin(entries[:7], ())
        del entries[:7]
        while not batch.step():
            pass
    tell("replayed", machine_hashes(machine))
    wal.close()
    files.close()


def machine_hashes(machine: Machine) -> list[int]:
    view = machine.view()

    def finish(job: Any) -> Any:
        try:
            while True:
                next(job)
        except StopIteration as stop:
            return stop.value

    answer = finish(view.hash_kv(0))
    state = finish(view.hash())
    view.close()
    return [answer.hash, answer.compact_revision, state, machine.revision, machine.applied_index]


async def unless_it_ends(node: Node, work: Awaitable[None]) -> None:
    """Does `work` while the member lives; says why it ended if it does."""
    working = asyncio.ensure_future(work)
    ending = asyncio.ensure_future(node.wait_stopped())
    await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        reason = ending.result()
        tell("ended by itself", reason.kind.name, reason.message)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return
    ending.cancel()
    await working


LIMIT_S = 40
"""A job that takes longer is ended by the system, and counts as failed."""

JOBS: dict[str, Callable[[Path, int], Any]] = {
    "live": live,
    "join": join,
    "settle": settle,
    "settle both": settle_both,
}


def run(job: dict[str, Any]) -> None:
    signal.alarm(LIMIT_S)
    directory = Path(job["directory"])
    logging.disable(logging.CRITICAL)
    if job["job"] == "replay":
        replay(directory, job["seed"])
        return
    if job.get("faults"):
        faults.arm(faults.parse(job["faults"]))
    else:
        faults.install(lambda name: None)  # counts what is passed
    asyncio.run(JOBS[job["job"]](directory, job.get("seed", 0)))
    tell("passed", {name: count for name, count in faults.passed.items() if count})


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(json.loads(line))
                code = 0
            except BaseException:
                tell("error", traceback.format_exc())
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        tell("ended", os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
