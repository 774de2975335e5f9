"""The loops of the generator against servers in the same process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest

from benchmarks import calls
from benchmarks.generator import unary
from benchmarks.generator.caller import Caller, CallError
from benchmarks.generator.connection import Connection
from benchmarks.generator.jobs import Job
from benchmarks.generator.leases import Keeper
from benchmarks.generator.requests import Method, Space, draw
from benchmarks.generator.responder import Responder
from benchmarks.generator.steady import Steady
from kvstore.pb import rpc_pb2

MESSAGE = bytes(40)


@contextmanager
def responding(status: bytes = b"0") -> Iterator[Responder]:
    responder = Responder(MESSAGE, status)
    thread = threading.Thread(target=responder.serve)
    thread.start()
    try:
        yield responder
    finally:
        responder.stop()
        thread.join()


def job(port: int, method: Method, **other: object) -> Job:
    values: dict[str, object] = {
        "kind": "unary", "ports": [port], "connections": 2, "inflight": 16,
        "seconds": 0.2, "warmup_s": 0.05, "methods": [method.to_json()], "keys": 1000,
    }  # fmt: skip
    return Job(**(values | other))  # type: ignore[arg-type]


def test_each_call_is_answered_and_counted_once() -> None:
    with responding() as responder:
        done = unary.run(job(responder.port, calls.put(100)))
    assert done.failures == {}
    assert done.calls == done.writes == responder.calls
    assert 0 < done.count <= done.calls
    assert done.received_bytes == done.calls * (len(MESSAGE) + 5)
    assert set(done.latency_ms) == {"p50", "p90", "p99", "p999", "max"}


def test_windows_are_honoured_and_given_back() -> None:
    """Sixteen requests of 16 KB on a connection whose window is 64 KB at first."""
    with responding() as responder:
        done = unary.run(job(responder.port, calls.put(16 * 1024), connections=1))
    assert done.failures == {}
    assert done.calls == responder.calls > 16


def test_a_space_that_is_used_up_ends_the_run() -> None:
    with responding() as responder:
        done = unary.run(job(responder.port, calls.delete(), keys=100, step=1, seconds=30.0))
    assert done.calls == responder.calls == 100
    assert done.seconds < 20


def test_a_status_is_a_failure() -> None:
    with responding(b"14") as responder:
        done = unary.run(job(responder.port, calls.put(100)))
        assert set(done.failures) == {"grpc-status 14: "}
        assert done.latency_ms == {}
        with Caller(responder.port) as call, pytest.raises(CallError, match="grpc-status 14"):
            call("/a.B/C", b"")


def test_one_call() -> None:
    with responding() as responder, Caller(responder.port) as call:
        assert call("/a.B/C", b"") == MESSAGE
        assert call("/a.B/C", bytes(20_000)) == MESSAGE


def test_calls_by_the_clock_keep_their_phases_apart() -> None:
    with responding() as responder:
        connection = Connection(responder.port)
        steady = Steady(connection, draw([calls.put(100)], Space(10)), rate=1000)
        for phase in ("without", "with"):
            steady.begin(phase)
            deadline = perf_counter() + 0.1
            while (left := deadline - perf_counter()) > 0:
                steady.pump(min(left, steady.send_due()), [])
        steady.drain()
        steady.collect()
        connection.close()
    counts = {phase: len(found) for phase, found in steady.phases.items()}
    assert sum(counts.values()) == connection.sent == responder.calls
    assert 50 <= connection.sent <= 250
    assert counts["without"] > 20
    assert counts["with"] > 20


def test_a_late_call_counts_from_when_it_was_due() -> None:
    with responding() as responder:
        connection = Connection(responder.port)
        steady = Steady(connection, draw([calls.put(100)], Space(10)), rate=100)
        # As if the server had taken nothing for a tenth of a second.
        time.sleep(0.1)
        steady.send_due()
        steady.drain()
        steady.collect()
        connection.close()
    (latencies,) = steady.phases.values()
    assert connection.sent >= 10
    assert max(latencies) >= 0.1


def test_a_lease_is_lost_when_its_answer_has_no_ttl() -> None:
    def answer(lease: int, ttl_s: int) -> bytes:
        return rpc_pb2.LeaseKeepAliveResponse(ID=lease, TTL=ttl_s).SerializeToString()

    with responding() as responder:
        keeper = Keeper(responder.port)
        for lease in (7, 8):
            keeper.renew(lease, owner=0)
        keeper.answered(answer(7, 300))
        assert (keeper.gone, set(keeper.waiting)) == (set(), {8})
        keeper.answered(answer(8, 0))
        assert (keeper.gone, keeper.renewed, keeper.waiting) == ({8}, 2, {})
        assert not keeper.connection.failures
        keeper.answered(answer(9, 300))
        assert keeper.connection.failures
        keeper.connection.close()


def test_a_job_travels_as_json() -> None:
    one = job(1, calls.put(100))
    assert Job.loads(one.dumps()) == one
