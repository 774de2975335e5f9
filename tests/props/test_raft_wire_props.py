"""Whatever a peer sends is a message or a WireError, and a message survives the way back."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from raft.errors import WireError
from raft.messages import from_wire, to_wire

LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**65),
    st.binary(max_size=12),
    st.text(max_size=3),
    st.floats(),
)
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=5), max_leaves=12)
NUMBERS = st.integers(0, 4)
ENTRY = st.tuples(NUMBERS, NUMBERS, st.integers(0, 2), st.binary(max_size=3))
NEARLY = st.tuples(
    st.integers(0, 15),
    st.integers(0, 2),
    st.integers(0, 2),
    NUMBERS,
).flatmap(
    lambda head: st.lists(
        st.one_of(
            NUMBERS, st.booleans(), st.binary(max_size=3), st.lists(ENTRY, max_size=3), VALUE
        ),
        max_size=4,
    ).map(lambda rest: [*head, *rest])
)


@given(st.one_of(VALUE, NEARLY))
def test_a_message_or_a_wire_error(wire: Any) -> None:
    try:
        message = from_wire(wire)
    except WireError:
        return
    assert from_wire(to_wire(message)) == message
