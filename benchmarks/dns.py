"""DNS: queries a second of a server of one member, one hot name against many distinct ones.

    python -m benchmarks.dns                        # all measurements
    python -m benchmarks.dns hot --seconds 10

The generator is this process, the server another one. A window of questions is under way at any
time, a new one for each answer; what is not answered in half a second counts as lost. CPU is the
server's. DNS takes a fifth of the server's loop at most, so the figures are those of a fifth.
`cold` asks for each of the names once, `names` for all of them again and again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.message
import grpc

from kvstore.pb import rpc_pb2
from tests.support.servers import Server, make_cluster

NAMES = 10_000
WINDOW = 64
LOST_S = 0.5
HOT_INSTANCES = 5
PUTS_AT_ONCE = 64


def cpu_s(server: Server) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(server: Server) -> None:
    """One service of a few instances, and many of one each; written as any etcd client would."""
    wanted = [("hot", number) for number in range(HOT_INSTANCES)]
    wanted += [(f"service-{number}", 0) for number in range(NAMES)]
    with grpc.insecure_channel(server.endpoint) as channel, ThreadPoolExecutor(8) as pool:
        put = channel.unary_unary(
            "/etcdserverpb.KV/Txn",
            request_serializer=rpc_pb2.TxnRequest.SerializeToString,
            response_deserializer=rpc_pb2.TxnResponse.FromString,
        )

        def write(some: Sequence[tuple[str, int]]) -> None:
            request = rpc_pb2.TxnRequest()
            for service, number in some:
                value = {"address": f"10.0.0.{number + 1}", "port": 8080, "ttl_s": 30}
                one = request.success.add().request_put
                one.key = f"/kvstore/services/default/{service}/{service}-{number}".encode()
                one.value = json.dumps(value).encode()
            put(request, timeout=30)

        chunks = [wanted[at : at + PUTS_AT_ONCE] for at in range(0, len(wanted), PUTS_AT_ONCE)]
        list(pool.map(write, chunks))


def question(name: str) -> bytes:
    return dns.message.make_query(f"{name}.default.svc.kv.local", "A", use_edns=0).to_wire()


class Result:
    def __init__(self) -> None:
        self.answered = 0
        self.lost = 0
        self.empty = 0
        self.latencies_s: list[float] = []
        self.took_s = 0.0
        self.cpu_s = 0.0

    def line(self) -> str:
        latencies = sorted(self.latencies_s) or [0.0]
        p99 = latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))]
        return (
            f"{self.answered / self.took_s:8.0f} queries/s, lost {self.lost}, without records "
            f"{self.empty}; latency median {1e3 * statistics.median(latencies):.2f} ms, p99 "
            f"{1e3 * p99:.2f} ms; server {100 * self.cpu_s / self.took_s:.0f} % of a core, "
            f"{1e6 * self.cpu_s / max(self.answered, 1):.1f} us/query"
        )


def ask(
    server: Server, port: int, questions: Iterator[bytes], window: int, until: Callable[[], bool]
) -> Result:
    """Asks until `until` says so or the questions end."""
    result = Result()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, selectors.DefaultSelector() as s:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        s.register(sock, selectors.EVENT_READ)
        open_: dict[int, float] = {}
        next_id = 0
        began, cpu_before = time.perf_counter(), cpu_s(server)
        more = True
        while more or open_:
            while more and len(open_) < window:
                message = next(questions, None)
                if message is None:
                    more = False
                    break
                next_id = next_id + 1 & 0xFFFF
                open_[next_id] = time.perf_counter()
                sock.send(next_id.to_bytes(2, "big") + message[2:])
            if not s.select(0.05):
                late = [each for each, at in open_.items() if time.perf_counter() - at > LOST_S]
                for each in late:
                    del open_[each]
                result.lost += len(late)
            while True:
                try:
                    answer = sock.recv(4096)
                except BlockingIOError:
                    break
                sent = open_.pop(answer[0] << 8 | answer[1], None)
                if sent is not None:
                    result.latencies_s.append(time.perf_counter() - sent)
                    result.answered += 1
                    result.empty += not answer[7]
            more = more and not until()
        result.took_s = time.perf_counter() - began
        result.cpu_s = cpu_s(server) - cpu_before
    return result


def after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def forever(messages: Sequence[bytes]) -> Iterator[bytes]:
    while True:
        yield from messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["hot", "cold", "names", "flood"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--window", type=int, default=WINDOW)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        port = random.randrange(32_100, 32_700)
        flags = [f"--listen-dns=127.0.0.1:{port}", "--unsafe-no-fsync"]
        with make_cluster(Path(directory), extra=flags) as cluster:
            server = cluster.servers[0]
            fill(server)
            many = [question(f"service-{number}") for number in range(NAMES)]
            random.shuffle(many)
            hot = question("hot")
            for what in options.what:
                window = options.window * 16 if what == "flood" else options.window
                if what == "cold":
                    result = ask(server, port, iter(many), window, lambda: False)
                else:
                    asked = many if what == "names" else [hot]
                    result = ask(server, port, forever(asked), window, after(options.seconds))
                print(f"{what:6} {result.line()}", flush=True)


if __name__ == "__main__":
    main()
