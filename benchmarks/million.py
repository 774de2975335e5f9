"""Many keys: memory, restart, rates against a small store, and puts beside the heaviest requests.

    python -m benchmarks.million --keys 1000000                # ours, one node
    python -m benchmarks.million --keys 1000000 --server etcd  # Debian's etcd beside it

Prints one line a figure and, with --json FILE, writes them too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from kvstore.pb import rpc_pb2
from tests.support.servers import KVSTORE, Server, make_cluster

VALUE = bytes(range(100))
IN_FLIGHT = 64
ROUNDS = 5


def key_of(number: int) -> bytes:
    """100 bytes, so that the order of keys is not the order of loading."""
    return b"key/%016x/" % (number * 0x9E3779B97F4A7C15 % 2**64) + b"." * 79


class Caller:
    """Raw unary calls on one channel."""

    def __init__(self, endpoint: str) -> None:
        self.channel_target = endpoint
        self.channel = grpc.aio.insecure_channel(
            endpoint, options=[("grpc.max_receive_message_length", -1)]
        )
        self.methods: dict[str, Any] = {}

    async def __call__(self, path: str, request: Any, response: Any, timeout_s: float = 600) -> Any:
        stub = self.methods.get(path)
        if stub is None:
            stub = self.methods[path] = self.channel.unary_unary(f"/etcdserverpb.{path}")
        return response.FromString(await stub(request.SerializeToString(), timeout=timeout_s))


async def in_parallel(count: int, one: Callable[[int], Awaitable[object]], width: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(width)))


async def load(call: Caller, start: int, stop: int) -> float:
    """Puts keys start..stop in transactions of 100; seconds taken."""
    began = time.monotonic()

    async def one(batch: int) -> None:
        first = start + batch * 100
        ops = [
            rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key_of(n), value=VALUE))
            for n in range(first, min(first + 100, stop))
        ]
        await call("KV/Txn", rpc_pb2.TxnRequest(success=ops), rpc_pb2.TxnResponse)

    await in_parallel(-(-(stop - start) // 100), one, 16)
    return time.monotonic() - began


async def rate(call: Caller, keys: int, *, put: bool, seconds: float = 3.0) -> float:
    """Closed-loop calls per second over keys drawn at random."""
    chance = random.Random(1)
    stop_at = time.monotonic() + seconds
    done = 0

    async def worker() -> None:
        nonlocal done
        while time.monotonic() < stop_at:
            key = key_of(chance.randrange(keys))
            if put:
                await call("KV/Put", rpc_pb2.PutRequest(key=key, value=VALUE), rpc_pb2.PutResponse)
            else:
                answer = await call(
                    "KV/Range", rpc_pb2.RangeRequest(key=key), rpc_pb2.RangeResponse
                )
                assert answer.count == 1
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return done / (time.monotonic() - began)


_ASK = """
import sys, time, grpc
endpoint, path, request = sys.argv[1:]
channel = grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)])
grpc.channel_ready_future(channel).result(timeout=30)
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
channel.unary_unary(path)(bytes.fromhex(request), timeout=600)
print(time.monotonic() - began, flush=True)
"""


async def puts_beside(call: Caller, path: str, request: Any) -> tuple[float, float, float, int]:
    """Puts steadily while another process, whose work is not ours, makes a heavy request.

    Returns its seconds, p99 and worst put latency in seconds, and how many puts there were.
    """
    latencies: list[float] = []
    heavy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ASK, call.channel_target, f"/etcdserverpb.{path}",
        request.SerializeToString().hex(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert heavy.stdin is not None
    assert heavy.stdout is not None
    assert await heavy.stdout.readline() == b"ready\n"

    async def outcome() -> float:
        assert heavy.stdin is not None
        assert heavy.stdout is not None
        heavy.stdin.write(b"\n")
        line = await heavy.stdout.readline()
        await heavy.wait()
        return float(line) if line else float("nan")

    task = asyncio.ensure_future(outcome())

    async def prober(number: int) -> None:
        while not task.done():
            at = time.monotonic()
            await call(
                "KV/Put",
                rpc_pb2.PutRequest(key=b"probe/%d" % number, value=b"x"),
                rpc_pb2.PutResponse,
            )
            latencies.append(time.monotonic() - at)
            await asyncio.sleep(0.005)

    probers = [asyncio.ensure_future(prober(i)) for i in range(4)]
    took = await task
    await asyncio.gather(*probers)
    latencies.sort()
    return took, latencies[int(len(latencies) * 0.99)], latencies[-1], len(latencies)


def memory_mb(server: Server) -> tuple[float, float]:
    """(anonymous, total) resident memory of the process in MB."""
    assert server.process is not None
    fields = {}
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    return int(fields["RssAnon"][0]) / 1024, int(fields["VmRSS"][0]) / 1024


async def heavy_requests(call: Caller, keys: int, note: Callable[[str, object], None]) -> None:
    whole = {"key": b"key/", "range_end": b"key0"}

    async def lease_with_keys() -> object:
        granted = await call(
            "Lease/LeaseGrant", rpc_pb2.LeaseGrantRequest(TTL=3600), rpc_pb2.LeaseGrantResponse
        )

        async def one(batch: int) -> None:
            ops = [
                rpc_pb2.RequestOp(
                    request_put=rpc_pb2.PutRequest(
                        key=b"leased/%08d" % n, value=b"x", lease=granted.ID
                    )
                )
                for n in range(batch * 100, batch * 100 + 100)
            ]
            await call("KV/Txn", rpc_pb2.TxnRequest(success=ops), rpc_pb2.TxnResponse)

        await in_parallel(min(keys, 100_000) // 100, one, 16)
        return granted.ID

    lease_id = await lease_with_keys()
    head = await call("KV/Range", rpc_pb2.RangeRequest(key=b"x"), rpc_pb2.RangeResponse)
    revision = head.header.revision
    heavy: list[tuple[str, str, Any]] = [
        ("count-only", "KV/Range", rpc_pb2.RangeRequest(**whole, count_only=True)),
        ("get --prefix ''", "KV/Range", rpc_pb2.RangeRequest(**whole)),
        ("hashkv", "Maintenance/HashKV", rpc_pb2.HashKVRequest()),
        ("compaction", "KV/Compact", rpc_pb2.CompactionRequest(revision=revision, physical=True)),
        ("lease revoke", "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=lease_id)),
        ("del --prefix ''", "KV/DeleteRange", rpc_pb2.DeleteRangeRequest(**whole)),
    ]
    for name, path, request in heavy:
        took, p99, worst, puts = await puts_beside(call, path, request)
        note(f"{name}: seconds", round(took, 2))
        note(f"{name}: p99 of other puts, ms", round(p99 * 1000, 1))
        note(f"{name}: worst other put, ms", round(worst * 1000, 1))
        note(f"{name}: other puts", puts)


async def term_of(call: Caller) -> int:
    answer = await call("Maintenance/Status", rpc_pb2.StatusRequest(), rpc_pb2.StatusResponse)
    return int(answer.raftTerm)


def measure(keys: int, argv: tuple[str, ...], nodes: int) -> dict[str, object]:
    figures: dict[str, object] = {}

    def note(name: str, value: object) -> None:
        figures[name] = value
        print(f"{name:45} {value}", flush=True)

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        extra = ["--quota-backend-bytes=8589934592"]
        with (
            make_cluster(Path(scratch) / "many", size=nodes, argv=argv, extra=extra) as cluster,
            make_cluster(Path(scratch) / "few", size=nodes, argv=argv, extra=extra) as beside_it,
        ):
            server = cluster.servers[0]

            async def before() -> None:
                call = Caller(server.endpoint)
                few = Caller(beside_it.servers[0].endpoint)
                await load(few, 0, 1000)
                note("load, keys/s", round(keys / await load(call, 0, keys)))
                note("RssAnon, RSS after load, MB", [round(x) for x in memory_mb(server)])
                await asyncio.sleep(5)
                for put, name in ((False, "get"), (True, "put")):
                    # In turns, so that the machine's moods fall on both.
                    rates: list[tuple[float, float]] = []
                    for _ in range(ROUNDS):
                        small = await rate(few, 1000, put=put)
                        rates.append((small, await rate(call, keys, put=put)))
                    note(f"{name}/s at 1,000 keys", round(median(s for s, _ in rates)))
                    note(f"{name}/s at {keys:,} keys", round(median(m for _, m in rates)))
                    ratios = sorted(many / small for small, many in rates)
                    note(f"{name}: ratio, median of {ROUNDS}", round(median(ratios), 2))
                    note(
                        f"{name}: ratio, lowest and highest",
                        [round(ratios[0], 2), round(ratios[-1], 2)],
                    )

            time.sleep(1)  # its health page is up a moment before its client port
            asyncio.run(before())
            beside_it.close()
            for how in ("stop", "kill"):
                getattr(server, how)()
                began = time.monotonic()
                server.start()
                note(f"restart after {how} to healthy, s", round(time.monotonic() - began, 2))
                time.sleep(1)
            note("RssAnon, RSS after restart, MB", [round(x) for x in memory_mb(server)])

            async def beside() -> None:
                call = Caller(server.endpoint)
                term = await term_of(call)
                await heavy_requests(call, keys, note)
                note("leader changes during heavy requests", await term_of(call) - term)

            asyncio.run(beside())
            note("RssAnon, RSS at the end, MB", [round(x) for x in memory_mb(server)])
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--server", default="", help="another server's command, e.g. etcd")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    argv = tuple(options.server.split()) or KVSTORE
    figures = measure(options.keys, argv, options.nodes)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
