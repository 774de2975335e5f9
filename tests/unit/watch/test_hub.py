"""What golden scripts cannot show: sharing, bounds, slices, errors from the store, wake-ups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kvstore import errors
from kvstore.pb import rpc_pb2
from kvstore.watch import WatchHub, limits
from tests.unit.watch.model import (
    Change,
    ModelHistory,
    ModelView,
    cancel,
    create,
    decode,
    header,
    hub_on,
    progress,
    pseudo_random,
    pump_dry,
    take,
)


def test_watchers_of_many_streams_get_the_very_same_bytes() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    streams = [hub.open(lambda: None) for _ in range(3)]
    for stream in streams:
        stream.request(create(b"k"))
        stream.take(10, 1 << 20)
    hub.publish(history.commit((b"k", b"v" * 1000)))
    first, second, third = (stream.take(10, 1 << 20)[0] for stream in streams)
    assert first is second is third


def test_replayed_watchers_share_bytes_too() -> None:
    history = ModelHistory()
    history.commit((b"k", b"v"))
    hub = hub_on(history)
    streams = [hub.open(lambda: None) for _ in range(2)]
    for stream in streams:
        stream.request(create(b"k", start_revision=1))
    pump_dry(hub)
    first, second = (stream.take(10, 1 << 20)[1] for stream in streams)
    assert first is second


def test_a_publish_looks_only_at_watchers_of_its_keys() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    for number in range(2000):
        stream.request(create(b"key-%d" % number))
        stream.request(create(b"dir-%d/" % number, b"dir-%d0" % number))
    assert len(hub._live.interests_in(b"key-77")) == 1
    assert len(hub._live.interests_in(b"dir-77/x")) == 1
    stream.take(1 << 20, 1 << 30)
    hub.publish(history.commit((b"key-77", b"v"), (b"dir-77/x", b"v")))
    assert len(take(stream)) == 2


def test_a_stalled_stream_holds_a_bounded_number_of_responses_and_bytes() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k"))
    large = b"x" * (1 << 20)
    for _ in range(200):
        hub.publish(history.commit((b"k", large)))
        pump_dry(hub)
    assert stream.pending <= limits.BUFFERED_RESPONSES_MAX
    assert stream._bytes <= limits.BUFFERED_BYTES_MAX + len(large) + 200
    seen = []
    while messages := take(stream, 5):
        seen += [event.kv.mod_revision for message in messages for event in message.events]
        pump_dry(hub)
    assert seen == list(range(2, 202))
    assert stream._bytes == 0


def test_stalled_streams_together_hold_a_bounded_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each with events of its own; one that is read gets all of them meanwhile, and so do
    the others once somebody reads."""
    monkeypatch.setattr(limits, "BUFFERED_TOTAL_BYTES_MAX", 50_000)
    history = ModelHistory()
    hub = hub_on(history)
    keys = [b"k%02d" % number for number in range(20)]
    streams = [hub.open(lambda: None) for _ in keys]
    for key, stream in zip(keys, streams, strict=True):
        stream.request(create(key))
        take(stream)
    seen: list[list[int]] = [[] for _ in keys]

    def read(number: int) -> bool:
        messages = take(streams[number], 3)
        seen[number] += [event.kv.mod_revision for each in messages for event in each.events]
        pump_dry(hub)
        return bool(messages)

    for _ in range(100):
        for key in keys:
            hub.publish(history.commit((key, bytes(1000))))
        pump_dry(hub)
        while read(0):
            pass
    assert hub.queued_bytes == sum(stream._bytes for stream in streams)
    assert 45_000 <= hub.queued_bytes <= 50_000 + len(streams) * 1100, "about one more for each"
    for number in range(len(keys)):
        while read(number):
            pass
        assert seen[number] == list(range(2 + number, 2002, len(keys)))
    assert hub.queued_bytes == 0
    hub.publish(history.commit((keys[0], bytes(1000))))
    streams[0].close()
    assert hub.queued_bytes == 0


def test_a_client_that_only_asks_is_stopped() -> None:
    hub = hub_on(ModelHistory())
    stream = hub.open(lambda: None)
    stream.request(create(b"k"))
    while stream.accepts_requests:
        stream.request(progress())
    assert stream.pending == limits.READING_PAUSED_AT
    while stream.pending < limits.ANSWERS_QUEUED_MAX:
        stream.request(progress())
    with pytest.raises(errors.EtcdError) as caught:
        stream.request(progress())
    assert caught.value == errors.TOO_MANY_REQUESTS
    assert stream.pending == limits.ANSWERS_QUEUED_MAX


def test_too_many_watchers_on_one_stream_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCHERS_PER_STREAM_MAX", 2)
    stream = hub_on(ModelHistory()).open(lambda: None)
    for _ in range(3):
        stream.request(create(b"k"))
    assert [message.cancel_reason for message in take(stream)][2].startswith("etcdserver: too many")
    stream.request(cancel(0))
    stream.request(create(b"k"))
    assert [message.watch_id for message in take(stream)] == [0, 2]


def test_take_keeps_to_messages_and_bytes_but_always_moves() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k"))
    for _ in range(5):
        hub.publish(history.commit((b"k", b"v" * 100)))
    assert len(stream.take(2, 1 << 20)) == 2
    assert len(stream.take(10, 1)) == 1
    two = stream.take(10, 350)
    assert len(two) == 2
    assert sum(map(len, two)) <= 350
    assert len(stream.take(10, 1 << 20)) == 1
    assert stream.take(10, 1 << 20) == []


def test_a_refused_create_leaves_the_stream_open() -> None:
    hub = hub_on(ModelHistory())
    stream = hub.open(lambda: None)
    stream.refuse_create("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
    (message,) = take(stream)
    assert (message.created, message.canceled, message.watch_id) == (True, True, -1)
    assert message.header.revision == 1
    stream.request(create(b"k"))
    assert take(stream)[0].watch_id == 0


def test_an_unknown_request_is_ignored_and_a_closed_stream_answers_nothing() -> None:
    hub = hub_on(ModelHistory())
    woken: list[int] = []
    stream = hub.open(lambda: woken.append(1))
    stream.request(rpc_pb2.WatchRequest())
    stream.close()
    stream.close()
    stream.request(create(b"k"))
    stream.refuse_create("no")
    assert stream.take(10, 1 << 20) == []
    assert not woken
    assert (hub.streams, hub.watchers) == (0, 0)


def test_closing_a_stream_takes_watchers_out_wherever_they_are() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", progress_notify=True))
    for _ in range(limits.BUFFERED_RESPONSES_MAX):
        hub.publish(history.commit((b"k", b"v")))
    stream.request(create(b"k", start_revision=1))  # behind; the first is blocked by now
    stream.request(create(b"other"))  # live
    assert (hub.watchers, hub.slow_watchers) == (3, 2)
    hub.pump()
    stream.close()
    pump_dry(hub)
    hub.publish(history.commit((b"k", b"v"), (b"other", b"v")))
    hub.progress_tick()
    assert (hub.streams, hub.watchers, hub.slow_watchers, hub.pending) == (0, 0, 0, 0)
    assert not hub._live.interests()
    assert not hub._notified
    assert history.open_views == 0


def test_cancel_in_the_middle_of_a_round() -> None:
    history = ModelHistory()
    for _ in range(2 * limits.SLICE_STEPS):
        history.commit((b"k", b"v"))
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", start_revision=1))
    stream.request(create(b"k", start_revision=1))
    assert hub.pump()
    stream.request(cancel(0))
    pump_dry(hub)
    messages = take(stream)
    assert [message.watch_id for message in messages if message.events] == [1]
    assert [message.watch_id for message in messages if message.canceled] == [0]


def test_a_slice_reads_a_bounded_number_of_changes() -> None:
    history = ModelHistory()
    history.commit(*((b"k%05d" % number, b"v") for number in range(5000)))
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", b"l", start_revision=1))
    slices = 0
    while hub.pump():
        slices += 1
        assert history.changes_read <= slices * limits.SLICE_STEPS
    assert slices >= 5000 // limits.SLICE_STEPS
    created, events = take(stream)
    assert created.created
    assert len(events.events) == 5000  # one revision, one response


def test_a_round_holds_its_view_for_a_bounded_number_of_changes() -> None:
    history = ModelHistory()
    for number in range(limits.ROUND_CHANGES_MAX // 100 + 10):
        history.log += [
            Change(number + 2, sub, 0, b"other", b"", created=False, lease=0) for sub in range(100)
        ]
        history.revision += 1
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", start_revision=1))
    views = 0
    while hub.pump():
        views += history.open_views == 0
    assert views >= 1
    assert (hub.slow_watchers, history.open_views) == (0, 0)


def test_a_burst_too_large_for_one_turn_goes_through_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LIVE_CHANGES_MAX", 4)
    history = ModelHistory()
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", b"l"))
    burst = [change for _ in range(3) for change in history.commit((b"k", b"v"), (b"k2", b"v"))]
    hub.publish(burst)
    live = take(stream)
    assert [message.header.revision for message in live] == [1, 2, 3]
    assert hub.slow_watchers == 1
    stream.request(progress())
    assert take(stream) == []
    pump_dry(hub)
    (replayed,) = take(stream)
    assert {event.kv.mod_revision for event in replayed.events} == {4}
    assert hub.revision == 4


def test_whoever_pumps_is_told_when_there_is_work_again() -> None:
    history = ModelHistory()
    history.commit((b"k", b"v"))
    calls: list[int] = []
    hub = WatchHub(
        history,
        header,
        max_response_bytes=1 << 20,
        random=pseudo_random(),
        on_behind=lambda: calls.append(1),
    )
    stream = hub.open(lambda: None)
    stream.request(create(b"k"))
    assert not calls
    stream.request(create(b"k", start_revision=1))
    stream.request(create(b"k", start_revision=1))
    assert len(calls) == 1
    pump_dry(hub)
    assert not hub.pump()
    for _ in range(limits.BUFFERED_RESPONSES_MAX):
        hub.publish(history.commit((b"k", b"v")))
    assert len(calls) == 1  # blocked watchers are no work before their client reads
    assert not hub.pump()
    take(stream)
    assert len(calls) == 2


class BrokenHistory(ModelHistory):
    """Its views fail after some changes."""

    broken = False

    def view(self) -> ModelView:
        history = self

        class View(ModelView):
            def changes(self, start_revision: int, stop_revision: int) -> Iterator[Change]:
                for number, change in enumerate(super().changes(start_revision, stop_revision)):
                    if history.broken and number == 3:
                        raise OSError("the store failed")
                    yield change

        return View(self)


def test_an_error_of_the_store_comes_through_and_loses_nothing() -> None:
    history = BrokenHistory()
    for number in range(6):
        history.commit((b"k", b"%d" % number))
    hub = hub_on(history)
    stream = hub.open(lambda: None)
    stream.request(create(b"k", start_revision=1))
    history.broken = True
    with pytest.raises(OSError, match="the store failed"):
        pump_dry(hub)
    assert history.open_views == 0
    history.broken = False
    pump_dry(hub)
    assert [len(message.events) for message in take(stream)] == [0, 6]


def test_a_transport_may_take_from_within_its_wake_call() -> None:
    history = ModelHistory()
    hub = hub_on(history)
    seen: list[rpc_pb2.WatchResponse] = []
    stream = hub.open(lambda: seen.extend(map(decode, stream.take(1 << 20, 1 << 30))))
    stream.request(create(b"k", start_revision=1))
    for number in range(300):
        hub.publish(history.commit((b"k", b"%d" % number)))
        pump_dry(hub)
    assert [event.kv.mod_revision for each in seen for event in each.events] == list(range(2, 302))


@pytest.mark.parametrize("fragment", [False, True])
def test_a_huge_revision_is_replayed_as_it_would_have_been_delivered(
    monkeypatch: pytest.MonkeyPatch, fragment: bool
) -> None:
    """Its events are kept as bytes, by kind and in both forms, and come out in order."""
    monkeypatch.setattr(limits, "ROUND_EVENTS_MAX", 3)
    monkeypatch.setattr(limits, "PACKED_EVENTS", 4)
    keys = [b"k%02d" % number for number in range(30)]
    forms: list[dict[str, Any]] = [
        {},
        {"prev_kv": True},
        {"filters": [rpc_pb2.WatchCreateRequest.NOPUT]},
        {"filters": [rpc_pb2.WatchCreateRequest.NODELETE], "prev_kv": True},
        {"start_revision": 3},
        {"start_revision": 4},
    ]
    history = ModelHistory()
    hub = hub_on(history, max_response_bytes=150)
    history.commit(*((key, b"old") for key in keys))  # 2
    history.commit((b"k00", b"newer"), (b"k01", b"newer"))  # 3
    operations = [(key, None if number % 7 < 4 else b"new") for number, key in enumerate(keys)]
    huge = history.commit(*operations)
    hub.publish_from_history()
    stream = hub.open(lambda: None)
    for form in forms:
        stream.request(create(b"k", b"l", **{"start_revision": 4, "fragment": fragment, **form}))
    pump_dry(hub)
    told: dict[int, list[rpc_pb2.WatchResponse]] = {}
    for message in take(stream):
        if message.events:
            told.setdefault(message.watch_id, []).append(message)
    for watch_id, form in enumerate(forms):
        pieces = told[watch_id]
        assert (len(pieces) > 1) == fragment
        assert [piece.fragment for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        events = [event for piece in pieces for event in piece.events]
        if form.get("start_revision") == 3:
            assert [event.kv.value for event in events[:2]] == [b"newer", b"newer"]
            events = events[2:]
        dropped = {int(kind) for kind in form.get("filters", [])}
        wanted = [change for change in huge if change.kind not in dropped]
        assert [event.kv.SerializeToString() for event in events] == [c.kv for c in wanted]
        assert [event.type for event in events] == [change.kind for change in wanted]
        for event in events:
            before = history.value_at(event.kv.key, 3) if form.get("prev_kv") else None
            assert event.HasField("prev_kv") == bool(before)
            assert not before or event.prev_kv.SerializeToString() == before
