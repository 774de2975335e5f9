"""A watch hub under random life against a filter over the whole history.

Bounds are set so small that streams fill up, rounds break off and bursts overflow all the time.
What is held, on every response taken: ordered, unique, reliable and atomic delivery, marks that
are true (bookmarkable), right prev_kv and is-create, filters, nothing below a start, and an end
by compaction only for who was overtaken. At the end everyone still open has everything.
"""

from __future__ import annotations

from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvstore.pb import kv_pb2, rpc_pb2
from kvstore.watch import WatchStream, limits
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

TINY = {
    "BUFFERED_RESPONSES_MAX": 4,
    "BUFFERED_BYTES_MAX": 400,
    "RESUME_AT_RESPONSES": 2,
    "RESUME_AT_BYTES": 200,
    "ROUND_WATCHERS_MAX": 3,
    "ROUND_REVISIONS_MAX": 3,
    "ROUND_EVENTS_MAX": 5,
    "ROUND_CHANGES_MAX": 7,
    "SLICE_STEPS": 2,
    "LIVE_CHANGES_MAX": 6,
}
RESPONSE_BYTES_MAX = 120

KEYS = [b"a", b"ab", b"b", b"c"]
RANGES = [(b"a", b""), (b"b", b""), (b"a", b"b"), (b"ab", b"c"), (b"b", b"\0"), (b"\0", b"\0")]
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.none() | st.binary(min_size=1, max_size=30)),
    min_size=1,
    max_size=3,
    unique_by=lambda operation: operation[0],
)


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


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = mock.patch.multiple(limits, **TINY)
        self.patches.start()
        self.history = ModelHistory()
        self.hub = hub_on(self.history, RESPONSE_BYTES_MAX)
        self.unpublished: list[Change] = []
        self.streams: list[WatchStream] = []
        self.expected: list[dict[int, Expected]] = []
        self.awaited: list[list[tuple[str, object]]] = []
        self.woken: list[bool] = []

    @initialize(streams=st.integers(1, 3))
    def open(self, streams: int) -> None:
        for number in range(streams):
            self.woken.append(False)
            self.streams.append(self.hub.open(lambda number=number: self.wake(number)))
            self.expected.append({})
            self.awaited.append([])

    def wake(self, number: int) -> None:
        assert not self.woken[number], "woken twice for the same output"
        self.woken[number] = True

    @rule(operations=OPERATIONS, publish=st.booleans())
    def commit(self, operations: list[tuple[bytes, bytes | None]], publish: bool) -> None:
        self.unpublished += self.history.commit(*operations)
        if publish:
            self.publish()

    @rule()
    def publish(self) -> None:
        changes, self.unpublished = self.unpublished, []
        self.hub.publish(changes)

    @precondition(lambda self: self.hub.revision > max(1, self.history.compact_revision))
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        low = max(self.history.compact_revision + 1, 1)
        self.history.compact(data.draw(st.integers(low, self.hub.revision)))

    @rule()
    def restore(self) -> None:
        """Everything committed but unpublished came by a snapshot."""
        self.unpublished.clear()
        self.hub.restored()

    @rule(
        data=st.data(),
        bounds=st.sampled_from(RANGES),
        prev_kv=st.booleans(),
        notify=st.booleans(),
        fragment=st.booleans(),
        filters=st.lists(st.integers(0, 1), max_size=1),
    )
    def create(self, data: st.DataObject, bounds: tuple[bytes, bytes], prev_kv: bool, notify: bool,
               fragment: bool, filters: list[int]) -> None:  # fmt: skip
        number = data.draw(st.integers(0, len(self.streams) - 1))
        start = data.draw(st.just(0) | st.integers(1, self.history.revision + 4))
        request = create(*bounds, start_revision=start, prev_kv=prev_kv, progress_notify=notify,
                         fragment=fragment, filters=filters)  # fmt: skip
        watcher = Expected(request.create_request, self.history.revision)
        self.awaited[number].append(("created", watcher))
        self.streams[number].request(request)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.streams) - 1))
        watch_id = data.draw(st.integers(0, 6))
        if watch_id in self.streams[number]._watchers:
            self.awaited[number].append(("canceled", watch_id))
        self.streams[number].request(cancel(watch_id))

    @rule(data=st.data())
    def ask_progress(self, data: st.DataObject) -> None:
        self.streams[data.draw(st.integers(0, len(self.streams) - 1))].request(progress())

    @rule()
    def tick(self) -> None:
        self.hub.progress_tick()

    @rule(slices=st.integers(1, 12))
    def pump(self, slices: int) -> None:
        for _ in range(slices):
            self.hub.pump()

    @rule(data=st.data(), messages=st.integers(1, 8), size=st.integers(1, 400))
    def take(self, data: st.DataObject, messages: int, size: int) -> None:
        self.receive(data.draw(st.integers(0, len(self.streams) - 1)), messages, size)

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

    @invariant()
    def streams_are_bounded(self) -> None:
        for stream, awaited in zip(self.streams, self.awaited, strict=True):
            # Fragments of the last response and answers come on top.
            assert stream.pending - len(awaited) < 200
            assert stream._bytes == sum(map(len, stream._queue))

    @invariant()
    def watchers_stand_where_they_say(self) -> None:
        assert self.hub.watchers == sum(stream.watchers for stream in self.streams)
        blocked = sum(len(stream._blocked) for stream in self.streams)
        assert self.hub.slow_watchers == blocked + len(self.hub._catchup)

    def teardown(self) -> None:
        try:
            self.publish()
            working = True
            while working:
                pump_dry(self.hub)
                working = any([self.receive(n, 3, 1 << 30) for n in range(len(self.streams))])
            assert self.history.open_views == 0
            assert self.hub.slow_watchers == 0
            for watchers, awaited in zip(self.expected, self.awaited, strict=True):
                assert not awaited
                for watcher in watchers.values():
                    wanted = watcher.events(self.history.log)
                    assert [(each.revision, each.key) for each in wanted] == watcher.delivered
        finally:
            self.patches.stop()


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
