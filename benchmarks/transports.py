"""The gRPC transports against each other, on real servers of one member, in alternation.

    python -m benchmarks.transports                       # all measurements, all transports
    python -m benchmarks.transports watch --rounds 3 --transport http2 --transport grpcio

`health`, `put` and `range` are unary calls by h2load (Debian's nghttp2-client); `watch` counts
events that reach many watchers of one key; `keepalive` counts renewals on one stream. CPU is the
server's.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from hpack import Encoder

from kvstore.api.http2 import frames
from kvstore.api.http2.frames import FrameSplitter
from kvstore.pb import rpc_pb2
from tests.support.servers import Server, make_cluster

SECONDS = 2
CONNECTIONS = 8
CALLS_EACH = 16
WATCH_CONNECTIONS = 10
WATCHERS_EACH = 100
WATCH_PUTS = 100
WIDE = 2**30


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def cpu_s(server: Server) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def h2load(server: Server, path: str, request: bytes) -> int:
    """Calls that the server answered in `SECONDS`."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(framed(request))
        body.flush()
        done = subprocess.run(
            [
                "h2load",
                *("-D", str(SECONDS), "-c", str(CONNECTIONS), "-m", str(CALLS_EACH)),
                *("-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers"),
                f"http://{server.endpoint}{path}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    match = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    assert match, done.stdout
    assert match[2] == match[3] == "0", done.stdout
    return int(match[1])


def health(server: Server) -> tuple[int, float]:
    """A handler that does next to nothing: what the transport itself costs."""
    return h2load(server, "/grpc.health.v1.Health/Check", b""), SECONDS


def put(server: Server) -> tuple[int, float]:
    request = rpc_pb2.PutRequest(key=b"bench", value=bytes(100)).SerializeToString()
    return h2load(server, "/etcdserverpb.KV/Put", request), SECONDS


def range_(server: Server) -> tuple[int, float]:
    request = rpc_pb2.RangeRequest(key=b"bench", serializable=True).SerializeToString()
    return h2load(server, "/etcdserverpb.KV/Range", request), SECONDS


class Streams:
    """Connections that open streams of one method and count the messages that arrive."""

    def __init__(self, server: Server, connections: int, path: str) -> None:
        self._path = path
        self._selector = selectors.DefaultSelector()
        self._sockets: list[tuple[socket.socket, FrameSplitter, Encoder]] = []
        for _ in range(connections):
            one = socket.create_connection(("127.0.0.1", server.client_port))
            splitter = FrameSplitter()
            one.sendall(
                frames.PREFACE
                + frames.settings([(frames.Setting.INITIAL_WINDOW_SIZE, WIDE)])
                + frames.window_update(0, WIDE)
            )
            self._sockets.append((one, splitter, Encoder()))
            self._selector.register(one, selectors.EVENT_READ, splitter)

    def open(self, streams: int, request: bytes) -> None:
        """Opens streams on every connection and sends the first message of each."""
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", self._path),
            (":authority", "bench"), ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        for one, _, encoder in self._sockets:
            parts = []
            for stream_id in range(1, 2 * streams, 2):
                parts.append(frames.headers(stream_id, encoder.encode(fields), end_stream=False))
                parts += frames.data_head(len(request) + 5, stream_id), framed(request)
            one.sendall(b"".join(parts))

    def send(self, stream_id: int, messages: list[bytes]) -> None:
        """Further messages on one stream of every connection."""
        for one, _, _ in self._sockets:
            one.sendall(
                b"".join(
                    frames.data_head(len(each) + 5, stream_id) + framed(each) for each in messages
                )
            )

    def receive(self, count: int) -> None:
        """Waits for so many messages on all streams together."""
        while count > 0:
            for key, _ in self._selector.select(timeout=20):
                for kind, flags, stream_id, payload in key.data.feed(key.fileobj.recv(1 << 18)):
                    if kind == frames.DATA:
                        count -= messages_in(payload)
                    elif kind == frames.PING and not flags & frames.ACK:
                        key.fileobj.sendall(frames.ping(payload, ack=True))
                    assert kind not in (frames.GOAWAY, frames.RST_STREAM), (stream_id, payload)

    def close(self) -> None:
        for one, _, _ in self._sockets:
            one.close()


def messages_in(payload: bytes) -> int:
    """Whole messages in a frame; the servers here never cut one of these small ones."""
    count = at = 0
    while at < len(payload):
        at += 5 + int.from_bytes(payload[at + 1 : at + 5], "big")
        count += 1
    return count


def watch(server: Server) -> tuple[int, float]:
    """Events delivered to a thousand watchers of one key."""
    key = b"watched-%d" % time.monotonic_ns()
    create = rpc_pb2.WatchCreateRequest(key=key)
    request = rpc_pb2.WatchRequest(create_request=create).SerializeToString()
    watchers = WATCH_CONNECTIONS * WATCHERS_EACH
    streams = Streams(server, WATCH_CONNECTIONS, "/etcdserverpb.Watch/Watch")
    streams.open(WATCHERS_EACH, request)
    streams.receive(watchers)
    with grpc.insecure_channel(server.endpoint) as channel:
        method = channel.unary_unary("/etcdserverpb.KV/Put")
        message = rpc_pb2.PutRequest(key=key, value=bytes(100)).SerializeToString()
        begin = time.monotonic()
        # One response holds what one turn has brought: each put waits for the one before it.
        for _ in range(WATCH_PUTS):
            method(message)
            streams.receive(watchers)
        took = time.monotonic() - begin
    streams.close()
    return WATCH_PUTS * watchers, took


def keepalive(server: Server) -> tuple[int, float]:
    """Renewals of one lease, a hundred at a time on one stream."""
    with grpc.insecure_channel(server.endpoint) as channel:
        grant = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        body = grant(rpc_pb2.LeaseGrantRequest(TTL=600).SerializeToString())
        lease = rpc_pb2.LeaseGrantResponse.FromString(body).ID
    request = rpc_pb2.LeaseKeepAliveRequest(ID=lease).SerializeToString()
    streams = Streams(server, 1, "/etcdserverpb.Lease/LeaseKeepAlive")
    streams.open(1, request)
    streams.receive(1)
    count, begin = 0, time.monotonic()
    while time.monotonic() - begin < SECONDS:
        streams.send(1, [request] * 100)
        streams.receive(100)
        count += 100
    took = time.monotonic() - begin
    streams.close()
    return count, took


MEASUREMENTS: dict[str, Callable[[Server], tuple[int, float]]] = {
    "health": health,
    "put": put,
    "range": range_,
    "watch": watch,
    "keepalive": keepalive,
}


@contextmanager
def servers(transports: list[str], directory: Path) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                make_cluster(directory / name, extra=(f"--transport={name}",))
            ).servers[0]
            for name in transports
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*MEASUREMENTS, []], help="default: all")
    parser.add_argument("--transport", action="append", choices=["http2", "native", "grpcio"])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    transports = options.transport or ["http2", "native", "grpcio"]
    with tempfile.TemporaryDirectory() as scratch, servers(transports, Path(scratch)) as running:
        for what in options.what or MEASUREMENTS:
            rates: dict[str, list[float]] = defaultdict(list)
            costs: dict[str, list[float]] = defaultdict(list)
            for _ in range(options.rounds):
                for name, server in running.items():
                    before = cpu_s(server)
                    count, took = MEASUREMENTS[what](server)
                    rates[name].append(count / took)
                    costs[name].append((cpu_s(server) - before) / count * 1e6)
            first = statistics.median(rates[transports[0]])
            for name in transports:
                rate = statistics.median(rates[name])
                print(
                    f"{what:10} {name:7} {rate:9.0f}/s"
                    f"  {statistics.median(costs[name]):6.1f} µs CPU"
                    f"  {transports[0]} is {first / rate:.2f} times as fast"
                    f"  (rounds: {', '.join(f'{each:.0f}' for each in rates[name])})"
                )


if __name__ == "__main__":
    main()
