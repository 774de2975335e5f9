"""A watch hub under random life: small shrinkable stories, and long walks from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvstore.watch import WatchStream, limits
from tests.props.watch_world import KEYS, RANGES, TINY, World, walk

STREAMS = 2
STREAM = st.integers(0, STREAMS - 1)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.none() | st.binary(min_size=1, max_size=30)),
    min_size=1,
    max_size=3,
    unique_by=lambda operation: operation[0],
)


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patches = mock.patch.multiple(limits, **TINY)
        self.patches.start()
        self.world = World(STREAMS)

    @rule(revisions=st.lists(OPERATIONS, min_size=1, max_size=8), publish=st.booleans())
    def commit(self, revisions: list[list[tuple[bytes, bytes | None]]], publish: bool) -> None:
        for operations in revisions:
            self.world.commit(operations)
            if publish:
                self.world.publish()

    @rule()
    def publish(self) -> None:
        self.world.publish()

    @precondition(lambda self: self.world.compactable())
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.world.history.compact(data.draw(st.sampled_from(self.world.compactable())))

    @rule()
    def restore(self) -> None:
        self.world.restore()

    @rule(
        number=STREAM,
        bounds=st.sampled_from(RANGES),
        back=st.none() | st.integers(-4, 20),
        flags=st.fixed_dictionaries(
            {
                "prev_kv": st.booleans(),
                "progress_notify": st.booleans(),
                "fragment": st.booleans(),
                "filters": st.lists(st.integers(0, 1), max_size=1),
            }
        ),
    )
    def create(
        self, number: int, bounds: tuple[bytes, bytes], back: int | None, flags: dict[str, object]
    ) -> None:
        start = 0 if back is None else max(self.world.history.revision - back, 0)
        self.world.create(number, bounds, start_revision=start, **flags)

    @rule(number=STREAM, watch_id=st.integers(0, 6))
    def cancel(self, number: int, watch_id: int) -> None:
        self.world.cancel(number, watch_id)

    @rule(number=STREAM)
    def ask_progress(self, number: int) -> None:
        self.world.ask_progress(number)

    @rule()
    def tick(self) -> None:
        self.world.hub.progress_tick()

    @rule(slices=st.integers(1, 12))
    def pump(self, slices: int) -> None:
        self.world.pump(slices)

    @rule(number=STREAM, messages=st.integers(1, 8), size=st.integers(1, 400))
    def take(self, number: int, messages: int, size: int) -> None:
        self.world.receive(number, messages, size)

    @invariant()
    def bounds_hold(self) -> None:
        self.world.check_bounds()

    def teardown(self) -> None:
        try:
            self.world.finish()
        finally:
            self.patches.stop()


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@pytest.fixture
def tiny_bounds() -> Iterator[None]:
    with mock.patch.multiple(limits, **TINY):
        yield


@pytest.mark.usefixtures("tiny_bounds")
@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_long_walk_keeps_every_promise(seed: int) -> None:
    walk(World(STREAMS), seed)


@pytest.mark.usefixtures("tiny_bounds")
def test_walks_go_everywhere() -> None:
    """They would prove nothing if streams never filled up and nobody was ever overtaken."""
    block = WatchStream.block
    with mock.patch.object(WatchStream, "block", autospec=True, side_effect=block) as blocked:
        worlds = [walk(World(STREAMS), seed) for seed in range(10)]
    assert blocked.call_count >= 50
    assert sum(world.overtaken for world in worlds) >= 5
    assert sum(world.marks for world in worlds) >= 20
    assert sum(world.fragments for world in worlds) >= 20
