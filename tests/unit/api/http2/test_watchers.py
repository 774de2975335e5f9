"""Watchers over HTTP/2: those who do not read are in nobody's way, and cost a bounded amount."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from kvstore.api.http2 import frames
from kvstore.api.http2.frames import Setting
from kvstore.pb import rpc_pb2
from tests.unit.api.client import Client, create
from tests.unit.api.conftest import Local
from tests.unit.api.http2.raw import Raw, message, request_headers

STALLED = 100
PUTS = 300
VALUE = bytes(5000)
WATCH = "/etcdserverpb.Watch/Watch"


@pytest.fixture
def local() -> Iterator[Local]:
    server = Local("http2")
    yield server
    server.close()


class Watchers:
    """Watch streams on one connection, one watcher each, of the key `k`; nobody reads by itself."""

    def __init__(self, raw: Raw, count: int) -> None:
        self.raw = raw
        self.created: set[int] = set()
        self.revisions: dict[int, list[int]] = defaultdict(list)
        """Revisions of the events that each stream has got."""
        self.received = 0
        self._rest: dict[int, bytes] = defaultdict(bytes)
        request = message(create(b"k").SerializeToString())
        for stream_id in range(1, 2 * count, 2):
            raw.send(raw.headers(stream_id, request_headers(path=WATCH)))
            raw.data(stream_id, request)
        while len(self.created) < count:
            self.read()

    def read(self) -> None:
        """One frame; its window is given back."""
        kind, _, stream_id, payload = self.raw.next()
        if kind != frames.DATA:
            return
        self.raw.widen(0, len(payload))
        self.raw.widen(stream_id, len(payload))
        data = self._rest[stream_id] + payload
        while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
            response = rpc_pb2.WatchResponse.FromString(data[5:end])
            data = data[end:]
            if response.created:
                self.created.add(stream_id)
            self.revisions[stream_id] += [event.kv.mod_revision for event in response.events]
            self.received += len(response.events)
        self._rest[stream_id] = data

    def read_events(self, count: int) -> None:
        """Until there were so many in all."""
        while self.received < count:
            self.read()


@pytest.mark.parametrize("stall", ["window", "socket"])
def test_stalled_watchers_hold_up_nobody(local: Local, stall: str) -> None:
    wide = () if stall == "window" else ((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1),)
    client = Client(local.channel)
    with Raw(local.target, wide) as stalled, Raw(local.target) as reading:
        if stall == "socket":
            stalled.widen(0, 2**30)
        Watchers(stalled, STALLED)  # nothing more is read from there
        readers = Watchers(reading, 5)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.monotonic()
        for done in range(50, PUTS + 1, 50):
            for _ in range(50):
                client.put(b"k", VALUE)
            readers.read_events(5 * done)
        took = time.monotonic() - begin
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert list(readers.revisions.values()) == [list(range(2, PUTS + 2))] * 5
        assert took < 10
        # A hundred readers for whom 1.5 MB each were kept would cost 150 MB.
        assert grown_kib < 100_000
        assert client.range(b"k").kvs[0].mod_revision == PUTS + 1


def test_a_stalled_watcher_catches_up_when_it_reads_again(local: Local) -> None:
    client = Client(local.channel)
    with Raw(local.target) as raw:
        watchers = Watchers(raw, 1)
        for _ in range(PUTS):
            client.put(b"k", VALUE)
        watchers.read_events(PUTS)
        assert watchers.revisions[1] == list(range(2, PUTS + 2))
