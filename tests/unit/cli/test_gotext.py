"""Texts as Go writes them."""

from __future__ import annotations

import pytest

from kvstore.cli.gotext import duration, escaped_hex, message_fields, quoted, size, to_json
from kvstore.pb import rpc_pb2 as pb


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", '"plain"'),
        (b'a "b" \\ c', r'"a \"b\" \\ c"'),
        (b"\x00\x1f\x7f\n\t", r'"\x00\x1f\x7f\n\t"'),
        (b"\xff\x80", r'"\xff\x80"'),
        ("é 世".encode(), '"é 世"'),
        ("\u200b\U000e0001".encode(), r'"\u200b\U000e0001"'),
    ],
)
def test_quoted(data: bytes, text: str) -> None:
    assert quoted(data) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1e-9, "1ns"),
        (0.0000015, "1.5µs"),
        (0.001256549, "1.256549ms"),
        (1.5, "1.5s"),
        (60, "1m0s"),
        (3723.25, "1h2m3.25s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (9, "9 B"), (999, "999 B"), (1000, "1.0 kB"), (20480, "20 kB"), (1.5e6, "1.5 MB")],
)
def test_size(size_bytes: int, text: str) -> None:
    assert size(int(size_bytes)) == text


def test_hex_escapes() -> None:
    assert escaped_hex(b"fo\xff") == rb"\x66\x6f\xff"


def test_json_escapes_the_signs_of_html_and_leaves_zero_fields_out() -> None:
    answer = pb.MemberListResponse()
    answer.members.add(ID=2**64 - 1, name="<&>", isLearner=False)
    assert to_json(message_fields(answer)) == (
        r'{"members":[{"ID":18446744073709551615,"name":"\u003c\u0026\u003e"}]}'
    )


def test_json_names_the_chosen_field_of_a_oneof_in_camel_case() -> None:
    answer = pb.TxnResponse(succeeded=True)
    answer.responses.add(response_delete_range=pb.DeleteRangeResponse(deleted=3))
    assert to_json(message_fields(answer)) == (
        '{"succeeded":true,"responses":[{"Response":{"ResponseDeleteRange":{"deleted":3}}}]}'
    )
