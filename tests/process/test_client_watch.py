"""Watches of the blocking client against a real server, which is killed under them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore.client import (
    Client,
    ConnectError,
    Event,
    EventType,
    Put,
    Watch,
    WatchCanceled,
    WatchCompacted,
    WatchFilter,
    WatchResponse,
)
from kvstore.client.watching import WatchCursor
from tests.process.client_cluster import Cluster, cluster_fixture, wait_until
from tests.support.servers import free_ports

pytestmark = pytest.mark.process
cluster = cluster_fixture(1)


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.client() as client:
        client.delete_prefix("")
        yield client


def take(watch: Watch, count: int) -> list[Event]:
    """The next `count` events."""
    events: list[Event] = []
    while len(events) < count:
        response = watch.get(10)
        assert response is not None, f"only {len(events)} of {count} events"
        events.extend(response.events)
    assert len(events) == count
    return events


def test_sees_what_happens_after_it_was_made(client: Client) -> None:
    client.put("w/0", "before")
    with client.watch("w/", prefix=True, prev_kv=True) as watch:
        client.put("w/1", "a")
        client.put("w/1", "b")
        client.put("x", "outside")
        client.delete("w/1")
        created, changed, deleted = take(watch, 3)
        assert created.is_create
        assert created.prev_kv is None
        assert not changed.is_create
        assert changed.prev_kv == created.kv
        assert deleted.is_delete
        assert deleted.prev_kv == changed.kv
        assert watch.get(0.05) is None
    assert list(watch) == []


def test_starts_in_the_past_and_keeps_revisions_whole(client: Client) -> None:
    first = client.put("w/0", "").header.revision
    client.txn().then(*(Put(f"w/{i}", "txn") for i in range(1, 20))).commit()
    with client.watch("w/", prefix=True, start_revision=first) as watch:
        assert len(take(watch, 20)) == 20
        client.txn().then(Put("w/a"), Put("w/b")).commit()
        live = next(watch)
        assert len(live.events) == 2
        assert live.revision == live.header.revision == live.events[0].kv.mod_revision


def test_filters_and_single_keys(client: Client) -> None:
    with (
        client.watch("k", filters=[WatchFilter.NO_PUT]) as deletes,
        client.watch("k", filters=[WatchFilter.NO_DELETE]) as puts,
        client.watch("k", range_end="m") as both,
    ):
        client.put("k", "1")
        client.delete("k")
        client.put("m", "outside")
        client.put("k", "2")
        assert [e.type for e in take(both, 3)] == [
            EventType.PUT,
            EventType.DELETE,
            EventType.PUT,
        ]
        assert take(deletes, 1)[0].is_delete
        assert [e.kv.value for e in take(puts, 2)] == [b"1", b"2"]


def test_fragments_are_put_together(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bool] = []

    def feed(cursor: WatchCursor, message: Any) -> WatchResponse | None:
        pieces.append(message.fragment)
        return original(cursor, message)

    original = WatchCursor.feed
    monkeypatch.setattr(WatchCursor, "feed", feed)
    keys = [f"f/{i}" for i in range(3)]
    for value in ("x" * 450_000, "y" * 450_000):
        revision = client.txn().then(*(Put(key, value) for key in keys)).commit().header.revision
    # With the values before: one revision of 2.7 MB, and a piece may have 2 MB.
    with client.watch(
        "f/", prefix=True, start_revision=revision, prev_kv=True, fragment=True
    ) as watch:
        response = watch.get(10)
    assert response is not None
    assert [e.kv.key.decode() for e in response.events] == keys
    assert any(pieces)


def test_progress_on_request(client: Client) -> None:
    with client.watch("quiet") as watch:
        revision = client.put("elsewhere", "x").header.revision
        # The server answers only when all watchers of the stream have caught up.
        deadline = time.monotonic() + 5
        response = None
        while response is None and time.monotonic() < deadline:
            watch.request_progress()
            response = watch.get(0.2)
        assert response is not None
        assert response.is_progress
        assert response.revision >= revision
        assert watch.next_revision == response.revision + 1


def test_compacted_history_ends_the_watch(client: Client) -> None:
    start = client.put("k", "1").header.revision
    last = client.put("k", "2").header.revision
    client.compact(last)
    with client.watch("k", start_revision=start) as watch:
        with pytest.raises(WatchCompacted) as caught:
            watch.get(5)
        assert caught.value.compact_revision == last
        with pytest.raises(WatchCompacted):
            next(watch)


def test_a_refused_watch_says_why(client: Client) -> None:
    with pytest.raises(WatchCanceled):
        client.watch("b", range_end="a", timeout=5)
    with (
        Client(f"127.0.0.1:{free_ports(1)[0]}") as nobody,
        pytest.raises(ConnectError),
    ):
        nobody.watch("k", timeout=0.3)


def test_cancel_wakes_a_reader(client: Client) -> None:
    watch = client.watch("k")
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(watch))
    reader.start()
    client.put("k", "v")
    wait_until(lambda: seen)
    watch.cancel()
    watch.cancel()
    reader.join(5)
    assert not reader.is_alive()
    assert len(seen) == 1


def test_a_slow_reader_loses_nothing(client: Client) -> None:
    with client.watch("s") as watch:
        for i in range(300):
            client.put("s", str(i))
        time.sleep(0.1)
        assert len(watch._ready) <= 64
        assert [int(e.kv.value) for e in take(watch, 300)] == list(range(300))


def test_no_gap_and_no_repeat_when_the_server_is_killed(cluster: Cluster, client: Client) -> None:
    server = cluster.servers[0]
    written: list[int] = []
    stop = threading.Event()

    def write() -> None:
        with cluster.client() as writer:
            number = 0
            while not stop.is_set():
                try:
                    written.append(writer.put("n", str(number), timeout=2).header.revision)
                    number += 1
                except Exception:  # not applied, or unknown: the watch will tell
                    continue

    with client.watch("n", require_leader=True) as watch:
        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(2):
            time.sleep(0.3)
            server.kill()
            time.sleep(0.1)
            server.start()
            enough = len(written) + 50
            while len(written) < enough:
                time.sleep(0.01)
        stop.set()
        thread.join()
        found = client.get("n")
        assert found is not None
        revisions: list[int] = []
        while not revisions or revisions[-1] < found.mod_revision:
            response = watch.get(10)
            assert response is not None
            revisions += [e.kv.mod_revision for e in response.events]
    first = revisions[0]
    # The one writer makes every revision, so the events must be consecutive.
    assert revisions == list(range(first, found.mod_revision + 1))
    assert set(written) <= set(revisions)
