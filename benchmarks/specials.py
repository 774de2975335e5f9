"""What is no rate under load: failover, restart, memory, leases; h2load as a cross-check."""

from __future__ import annotations

import re
import select
import shutil
import subprocess
import tempfile
import time

from benchmarks import calls
from benchmarks.against_itself import own_snapshot_p99, put_keys, snapshot_p99
from benchmarks.generator.caller import Caller, CallError
from benchmarks.generator.connection import Connection, LostError
from benchmarks.generator.jobs import Job
from benchmarks.generator.requests import framed, request
from benchmarks.judging import reasons_void
from benchmarks.loads import CONNECTIONS, Run, Timing
from benchmarks.rows import Row
from benchmarks.sides import Side, StoreError, generate, memory_mb
from tests.support.servers import Server

__all__ = ("run_special",)

PROBE_S = 0.01
"""Time between two puts to the same member while writes are awaited."""
AWAIT_S = 30.0
LEASE_CONNECTIONS = 10
H2LOAD_PER_S = 8000
"""Calls of a cross-check, by the seconds of a run: it makes a number of calls, not for a time."""


def run_special(side: Side, row: Row, timing: Timing, seed: int) -> Run:
    """One run on a side whose turn it is; raises StoreError."""
    match row.load:
        case "failover":
            return Run(_failover(side), None, [])
        case "restart":
            side.fill(row.keys, row.value_bytes)
            return Run(_restart(side), None, [])
        case "memory":
            side.fill(row.keys, row.value_bytes)
            return Run(memory_mb(side.leader)["anonymous"], None, [])
        case "h2load-put" | "h2load-range":
            side.fill(row.keys, row.value_bytes)
            return _h2load(side, row, int(timing.seconds * H2LOAD_PER_S))
        case "put-keys":
            return put_keys(side, row, timing, seed)
        case "snapshot-p99":
            return snapshot_p99(side, row, timing, seed)
        case "snapshot-own-p99":
            return own_snapshot_p99(side, row, timing, seed)
        case "leases":
            return _leases(side, row, timing)
    raise ValueError(f"no such measurement: {row.load}")


def _failover(side: Side) -> float:
    """Seconds from the leader's kill -9 to the first put that another member acknowledges.

    Puts go to every survivor all the time: one that was sent into the gap may wait for long
    before it fails, and would tell that wait instead of the gap.
    """
    put = calls.put(100)
    probe = request(put.path, framed(put.message(0)), 1)
    victim, survivors = side.leader, side.followers()
    side.hang_up()
    probes = [Connection(server.client_port) for server in survivors]
    try:
        for each in probes:
            each.receive()
        victim.kill()
        killed = time.perf_counter()
        while not any(each.latencies for each in probes):
            if time.perf_counter() - killed > AWAIT_S:
                raise StoreError(f"no put succeeded within {AWAIT_S:.0f} s of the leader's end")
            for each in probes:
                each.submit(1, lambda: probe)
            deadline = time.perf_counter() + PROBE_S
            while not any(each.latencies for each in probes):
                left = deadline - time.perf_counter()
                if left <= 0:
                    break
                for each in select.select(probes, [], [], left)[0]:
                    each.receive()
        took = time.perf_counter() - killed
    except LostError as error:
        raise StoreError(f"a survivor of a failover closed its connection: {error}") from error
    finally:
        for each in probes:
            each.close()
    victim.start()
    side.settle()
    return took


def _restart(side: Side) -> float:
    """Seconds from the start of a stopped member to its first acknowledged put."""
    server = side.leader
    side.hang_up()
    server.stop()
    began = time.perf_counter()
    server.start(wait=False)
    _await_put(server)
    took = time.perf_counter() - began
    side.settle()
    return took


def _leases(side: Side, row: Row, timing: Timing) -> Run:
    """How many of `row.keys` leases were lost while each was renewed thrice in its TTL."""
    job = Job(
        kind="leases",
        ports=[side.leader.client_port],
        connections=LEASE_CONNECTIONS,
        inflight=row.inflight,
        seconds=timing.lease_ttl_s * 1.1,
        warmup_s=0,
        pids=side.pids(),
        keys=row.keys,
        options={"ttl_s": timing.lease_ttl_s},
    )
    before = side.revision()
    done = generate(job)
    void = reasons_void(done, revisions=side.revision() - before, answer_bytes=0)
    return Run(done.extra["lost"], done, void)


def _await_put(server: Server) -> None:
    put = calls.put(100)
    deadline = time.perf_counter() + AWAIT_S
    while time.perf_counter() < deadline:
        try:
            with Caller(server.client_port) as call:
                call(put.path, put.message(0), 2)
                return
        except (CallError, OSError):
            time.sleep(PROBE_S / 2)
    raise StoreError(f"no put succeeded within {AWAIT_S:.0f} s of the start")


def _h2load(side: Side, row: Row, count: int) -> Run:
    """Another generator's word: one body over and over, the gRPC status not looked at."""
    if shutil.which("h2load") is None:
        return Run(0.0, None, ["no h2load here: apt-get install nghttp2-client"])
    method = calls.put(row.value_bytes) if row.load == "h2load-put" else calls.range_keys()
    connections = min(CONNECTIONS, row.inflight)
    before = side.revision()
    with tempfile.NamedTemporaryFile() as body:
        body.write(framed(method.message(0)))
        body.flush()
        done = subprocess.run(
            [
                "h2load", "-n", str(count), "-c", str(connections),
                "-m", str(row.inflight // connections), "-d", body.name,
                "-H", "content-type: application/grpc", "-H", "te: trailers",
                f"http://{side.leader.endpoint}{method.path}",
            ],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    void = []
    totals = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    if not totals or not rate or (totals[1], totals[2], totals[3]) != (str(count), "0", "0"):
        void.append(f"h2load: {totals[0] if totals else done.stderr.strip()[:200]}")
    revisions = side.revision() - before
    if revisions != count * method.writes:
        void.append(f"the revision advanced by {revisions:,}, h2load's puts were {count:,}")
    return Run(float(rate[1]) if rate else 0.0, None, void)
