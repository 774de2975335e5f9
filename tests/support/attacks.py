"""Hostile and clumsy clients: raw bytes on a port, stalls, floods; what others feel meanwhile."""

from __future__ import annotations

import random
import socket
import statistics
import threading
import time
from pathlib import Path

import pytest

from tests.support.rpc import Rpc
from tests.support.servers import Server

TRANSPORTS = (
    "http2",
    pytest.param("grpcio", marks=pytest.mark.slow),
    pytest.param("native", marks=pytest.mark.slow),
)
"""The one that --transport=auto chooses first, and the others, which take as long again."""


def transport_flags(transport: str) -> tuple[str, ...]:
    """The flags that choose a transport; skips the test where it is not installed."""
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    return (f"--transport={transport}",)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
# A ClientHello of TLS 1.2 without extensions: what a client with https:// in its endpoint sends.
TLS_HELLO = bytes.fromhex("16030100310100002d0303" + "5a" * 32 + "00" + "0006c02bc02f009c" + "0100")


def garbage(seed: int, size: int = 4096) -> bytes:
    return random.Random(seed).randbytes(size)


def h2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


OPENINGS: dict[str, bytes] = {
    "nothing at all": b"",
    "an HTTP/1 request": b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    "a huge HTTP/1 header": b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
    "random bytes": garbage(1),
    "many random bytes": garbage(2, 300_000),
    "zeros": bytes(10_000),
    "a TLS hello": TLS_HELLO,
    "half a preface": PREFACE[:11],
    "a preface and then nothing": PREFACE,
    "a preface and settings": PREFACE + SETTINGS,
    "random frames": PREFACE + SETTINGS + garbage(3),
    "a frame of 16 MiB announced": PREFACE + SETTINGS + b"\xff\xff\xff\0\0\0\0\0\x01",
    "headers that are no HPACK": PREFACE + SETTINGS + h2_frame(1, 4, 1, garbage(4, 200)),
    "headers without an end": PREFACE + SETTINGS + h2_frame(1, 0, 1, b"\x82") * 1,
    "continuations without end": PREFACE
    + SETTINGS
    + h2_frame(1, 0, 1, b"\x82\x86")
    + h2_frame(9, 0, 1, b"\x00\x01a\x01b" * 1000) * 200,
    "data on a stream that is not open": PREFACE + SETTINGS + h2_frame(0, 1, 7, b"x" * 100),
    "a window of 2^31": PREFACE + SETTINGS + h2_frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "pings": PREFACE + SETTINGS + h2_frame(6, 0, 0, b"12345678") * 20_000,
    "settings": PREFACE + SETTINGS * 20_000,
}
"""What may arrive on a port from somebody who is not a gRPC client."""


def throw(port: int, data: bytes, *, linger_s: float = 0.0) -> socket.socket | None:
    """Opens a connection and sends; the open socket, or None if the server closed it meanwhile."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=2)
    try:
        sock.sendall(data)
    except OSError:
        sock.close()
        return None
    if linger_s:
        time.sleep(linger_s)
    return sock


class Bystander:
    """A well-behaved client that puts in a loop; how long each put took."""

    def __init__(self, endpoint: str, *, pause_s: float = 0.005, timeout_s: float = 10.0) -> None:
        self.delays: list[float] = []
        self.failures: list[BaseException] = []
        self._endpoint = endpoint
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Rpc(self._endpoint, timeout_s=self._timeout_s) as rpc:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    rpc.put("bystander", "x" * 100)
                except Exception as error:
                    self.failures.append(error)
                    return
                self.delays.append(time.monotonic() - began)
                self._stopping.wait(self._pause_s)

    def __enter__(self) -> Bystander:
        self._thread.start()
        deadline = time.monotonic() + 10
        while len(self.delays) < 5 and not self.failures and time.monotonic() < deadline:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def p99_s(self) -> float:
        assert len(self.delays) > 20, f"only {len(self.delays)} puts"
        return statistics.quantiles(self.delays, n=100)[98]


def rss_mib(server: Server) -> float:
    """Resident memory of the server's process."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def anonymous_mib(server: Server) -> float:
    """Its memory without the pages of the store's file, which the kernel takes back at will."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def open_files(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
