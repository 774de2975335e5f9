"""A watch hub with an oracle: a filter over the whole history.

What it holds, on every response taken: ordered, unique, reliable and atomic delivery, marks that
are true (bookmarkable), right prev_kv and is-create, filters, nothing below a start, and an end
by compaction only for who was overtaken. In `finish` everyone still open must have everything.
"""

from __future__ import annotations

import random

from kvstore.pb import kv_pb2, rpc_pb2
from kvstore.watch import WatchStream
from tests.unit.watch.model import (
    Change,
    ModelHistory,
    cancel,
    create,
    decode,
    hub_on,
    progress,
    pump_dry,
)

__all__ = ("KEYS", "RANGES", "TINY", "World", "walk")

TINY = {
    "BUFFERED_RESPONSES_MAX": 4,
    "BUFFERED_BYTES_MAX": 400,
    "RESUME_AT_RESPONSES": 2,
    "RESUME_AT_BYTES": 200,
    "ROUND_WATCHERS_MAX": 3,
    "ROUND_REVISIONS_MAX": 3,
    "ROUND_EVENTS_MAX": 5,
    "PACKED_EVENTS": 2,
    "ROUND_CHANGES_MAX": 7,
    "SLICE_STEPS": 2,
    "LIVE_CHANGES_MAX": 6,
}
"""Bounds so small that streams fill up, rounds break off and bursts overflow all the time."""

RESPONSE_BYTES_MAX = 120

KEYS = [b"a", b"ab", b"b", b"c"]
RANGES = [(b"a", b""), (b"b", b""), (b"a", b"b"), (b"ab", b"c"), (b"b", b"\0"), (b"\0", b"\0")]


class Expected:
    """What one watcher is to get, and how far it came."""

    def __init__(self, request: rpc_pb2.WatchCreateRequest, now: int) -> None:
        self.request = request
        self.explicit_start = request.start_revision
        self.start = request.start_revision or now + 1
        self.last_event = self.last_header = self.marked = 0
        self.delivered: list[tuple[int, bytes]] = []
        self.fragment_open = False

    def events(self, log: list[Change]) -> list[Change]:
        """Every event of the history that this watcher asked for."""
        key, end = self.request.key, self.request.range_end
        return [
            change
            for change in log
            if change.revision >= self.start
            and change.kind not in self.request.filters
            and (change.key == key if not end else change.key >= key)
            and (end in (b"", b"\0") or change.key < end)
        ]


class World:
    """A hub, its streams, and what each watcher is to get."""

    def __init__(self, streams: int, history: ModelHistory | None = None) -> None:
        self.history = history or ModelHistory()
        self.hub = hub_on(self.history, RESPONSE_BYTES_MAX)
        self.unpublished: list[Change] = []
        self.streams: list[WatchStream] = []
        self.expected: list[dict[int, Expected]] = []
        self.awaited: list[list[tuple[str, object]]] = []
        self.woken: list[bool] = []
        self.overtaken = self.marks = self.fragments = 0
        for number in range(streams):
            self.woken.append(False)
            self.streams.append(self.hub.open(lambda number=number: self.wake(number)))
            self.expected.append({})
            self.awaited.append([])

    def wake(self, number: int) -> None:
        assert not self.woken[number], "woken twice for the same output"
        self.woken[number] = True

    def commit(self, operations: list[tuple[bytes, bytes | None]]) -> None:
        self.unpublished += self.history.commit(*operations)

    def publish(self) -> None:
        changes, self.unpublished = self.unpublished, []
        self.hub.publish(changes)

    def compactable(self) -> range:
        return range(max(self.history.compact_revision + 1, 1), self.hub.revision + 1)

    def restore(self) -> None:
        """Everything committed but unpublished came by a snapshot."""
        self.unpublished.clear()
        self.hub.restored()

    def create(self, number: int, bounds: tuple[bytes, bytes], **fields: object) -> None:
        request = create(*bounds, **fields)
        watcher = Expected(request.create_request, self.history.revision)
        self.awaited[number].append(("created", watcher))
        self.streams[number].request(request)

    def cancel(self, number: int, watch_id: int) -> None:
        if watch_id in self.streams[number]._watchers:
            self.awaited[number].append(("canceled", watch_id))
        self.streams[number].request(cancel(watch_id))

    def ask_progress(self, number: int) -> None:
        self.streams[number].request(progress())

    def pump(self, slices: int) -> None:
        for _ in range(slices):
            self.hub.pump()

    def receive(self, number: int, messages: int, size: int) -> bool:
        taken = self.streams[number].take(messages, size)
        assert bool(taken) == self.woken[number], "output without a wake, or the reverse"
        if not self.streams[number].pending:
            self.woken[number] = False
        for message in taken:
            self.check(number, decode(message))
        return bool(taken)

    def check(self, number: int, response: rpc_pb2.WatchResponse) -> None:
        watchers, awaited = self.expected[number], self.awaited[number]
        if response.created:
            kind, watcher = awaited.pop(0)
            assert kind == "created"
            assert isinstance(watcher, Expected)
            assert response.watch_id not in watchers
            assert not any(each.fragment_open for each in watchers.values())
            watchers[response.watch_id] = watcher
            watcher.last_header = response.header.revision
            return
        if response.compact_revision:
            watcher = watchers.pop(response.watch_id)
            self.overtaken += 1
            assert response.canceled
            assert (response.header.revision, response.cancel_reason) == (0, "")
            assert response.compact_revision <= self.history.compact_revision
            assert max(watcher.start, watcher.last_event + 1) < response.compact_revision
            assert not watcher.fragment_open
            return
        if response.canceled:
            assert awaited.pop(0) == ("canceled", response.watch_id)
            assert not watchers.pop(response.watch_id).fragment_open
            return
        if response.watch_id == -1:
            assert watchers, "a mark for a stream without watchers"
            for watcher in watchers.values():
                self.check_mark(watcher, response.header.revision)
        elif not response.events:
            assert watchers[response.watch_id].request.progress_notify
            self.check_mark(watchers[response.watch_id], response.header.revision)
        else:
            others = [each for id_, each in watchers.items() if id_ != response.watch_id]
            assert not any(each.fragment_open for each in others), "inside a fragmented response"
            self.check_events(watchers[response.watch_id], response)

    def check_mark(self, watcher: Expected, revision: int) -> None:
        self.marks += 1
        assert not watcher.fragment_open
        assert revision >= max(watcher.explicit_start, watcher.last_header), "goes back"
        wanted = watcher.events(self.history.log)
        behind = [change for change in wanted if change.revision <= revision]
        assert len(watcher.delivered) >= len(behind), "the mark overtook events"
        watcher.marked = watcher.last_header = revision

    def check_events(self, watcher: Expected, response: rpc_pb2.WatchResponse) -> None:
        assert response.header.revision >= watcher.last_header, "goes back"
        watcher.last_header = response.header.revision
        wanted = watcher.events(self.history.log)
        for event in response.events:
            change = wanted[len(watcher.delivered)]
            assert event.type == change.kind
            assert event.kv.SerializeToString() == change.kv, "another event was due"
            assert change.revision > watcher.marked
            assert change.revision <= response.header.revision
            assert change.created == (event.type == 0 and event.kv.version == 1)
            self.check_prev_kv(watcher, event)
            watcher.delivered.append((change.revision, change.key))
            watcher.last_event = change.revision
        watcher.fragment_open = response.fragment
        self.fragments += response.fragment
        if response.fragment:
            assert watcher.request.fragment
        elif len(watcher.delivered) < len(wanted):
            assert wanted[len(watcher.delivered)].revision > watcher.last_event, "not atomic"

    def check_prev_kv(self, watcher: Expected, event: kv_pb2.Event) -> None:
        revision = event.kv.mod_revision - 1
        before = self.history.value_at(event.kv.key, revision)
        if event.HasField("prev_kv"):
            assert watcher.request.prev_kv
            assert event.prev_kv.SerializeToString() == before
        elif watcher.request.prev_kv and before is not None:
            assert revision < self.history.compact_revision, "prev_kv is missing"

    def check_bounds(self) -> None:
        """What must hold between any two steps."""
        slow = len(self.hub._catchup)
        for stream, awaited in zip(self.streams, self.awaited, strict=True):
            # Fragments of the last response, and answers, come on top of the bound.
            assert stream.pending - len(awaited) < 100
            assert stream._bytes == sum(map(len, stream._queue))
            slow += len(stream._blocked)
        assert self.hub.watchers == sum(stream.watchers for stream in self.streams)
        assert self.hub.slow_watchers == slow

    def finish(self) -> None:
        """Lets everyone catch up; nobody may lack anything then."""
        self.publish()
        working = True
        while working:
            pump_dry(self.hub)
            working = sum(self.receive(n, 3, 1 << 30) for n in range(len(self.streams))) > 0
        assert self.history.open_views == 0
        assert self.hub.slow_watchers == 0
        for watchers, awaited in zip(self.expected, self.awaited, strict=True):
            assert not awaited
            for watcher in watchers.values():
                wanted = watcher.events(self.history.log)
                assert [(each.revision, each.key) for each in wanted] == watcher.delivered


WALK_STEPS = 300
FLAGS = ("prev_kv", "progress_notify", "fragment")


def walk(world: World, seed: int) -> World:
    """A long life; the clients stall by turns, so streams fill up and drain again."""
    dice = random.Random(seed)
    for step in range(WALK_STEPS):
        number = dice.randrange(len(world.streams))
        stalled = step // 25 % 3 == 0
        choice = dice.random()
        if choice < 0.35:
            keys = dice.sample(KEYS, dice.randint(1, 3))
            world.commit(
                [(key, dice.randbytes(9) if dice.random() < 0.7 else None) for key in keys]
            )
            if dice.random() < 0.8:
                world.publish()
        elif choice < 0.55:
            world.pump(dice.randint(1, 8))
        elif choice < 0.80:
            if not stalled:
                world.receive(number, dice.randint(1, 5), dice.randint(1, 400))
        elif choice < 0.88:
            start = 0 if dice.random() < 0.5 else dice.randint(1, world.history.revision + 3)
            flags = {
                name: dice.random() < 0.5 for name in ("prev_kv", "progress_notify", "fragment")
            }
            filters = [dice.randrange(2)] if dice.random() < 0.2 else []
            world.create(
                number, dice.choice(RANGES), start_revision=start, filters=filters, **flags
            )
        elif choice < 0.91:
            world.cancel(number, dice.randint(0, 6))
        elif choice < 0.95:
            world.ask_progress(number)
        elif choice < 0.97:
            world.hub.progress_tick()
        elif choice < 0.985:
            world.restore()
        elif world.compactable():
            world.history.compact(dice.choice(world.compactable()[-12:]))
        world.check_bounds()
    world.finish()
    return world
