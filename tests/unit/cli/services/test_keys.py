"""What a terminal sends, as keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.cli.services.sight import Key, Sight, keys_of, pressed


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[B", [Key.UP, Key.DOWN]),
        ("\x1bOC", [Key.RIGHT]),
        ("\x1b", [Key.ESCAPE]),
        ("\x1b\x1b[D", [Key.ESCAPE, Key.LEFT]),
        ("a\x7f\r", ["a", Key.BACKSPACE, Key.ENTER]),
        ("\x1b[5~x", ["x"]),
        ("\x1b[1;5Cx", ["x"]),
        ("\x01é", ["é"]),
    ],
)
def test_keys(sent: str, keys: list[str]) -> None:
    assert list(keys_of(sent)) == keys


@given(st.text(alphabet=st.sampled_from("\x1b[OABq/r~1;\r\x7f \x00é")))
def test_whatever_is_sent_ends_and_is_understood_or_left_out(sent: str) -> None:
    sight = Sight()
    for key in keys_of(sent):
        sight = pressed(sight, key, [])
    assert sight.order
