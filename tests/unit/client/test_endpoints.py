"""Endpoints as users write them, and the rotation."""

from __future__ import annotations

import pytest

from kvstore.client.endpoints import Endpoint, Rotation, parse_endpoints


@pytest.mark.parametrize(
    ("text", "target", "secure"),
    [
        ("host:1234", "host:1234", False),
        ("host", "host:2379", False),
        ("http://127.0.0.1:2379/", "127.0.0.1:2379", False),
        ("https://host:2379", "host:2379", True),
        ("https://host", "host:2379", True),
        ("[::1]:2379", "[::1]:2379", False),
        ("[::1]", "[::1]:2379", False),
        ("::1", "[::1]:2379", False),
        ("unix:///run/kv.sock", "unix:/run/kv.sock", False),
        ("unixs:///run/kv.sock", "unix:/run/kv.sock", True),
    ],
)
def test_parse(text: str, target: str, secure: bool) -> None:
    endpoint = Endpoint.parse(text)
    assert (endpoint.target, endpoint.secure, endpoint.text) == (target, secure, text)


@pytest.mark.parametrize(
    "text", ["ftp://host", "host:port", "host:0", "host:70000", "a b", ":1", "unix://", "h/path"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        Endpoint.parse(text)


def test_tls_is_the_default_where_it_was_asked_for() -> None:
    assert Endpoint.parse("host", secure=True).secure
    assert not Endpoint.parse("http://host", secure=True).secure


def test_lists() -> None:
    assert [each.text for each in parse_endpoints("a:1, b:2,,a:1")] == ["a:1", "b:2"]
    assert len(parse_endpoints(["a", "b"])) == 2
    with pytest.raises(ValueError, match="no endpoint"):
        parse_endpoints(" , ")


def test_rotation_moves_on_once_per_failure() -> None:
    a, b, c = parse_endpoints("a,b,c")
    rotation = Rotation((a, b, c))
    assert rotation.current == a
    rotation.failed(b)  # not in use: somebody else's old news
    assert rotation.current == a
    rotation.failed(a)
    rotation.failed(a)
    assert rotation.current == b
    rotation.failed(b)
    rotation.failed(c)
    assert rotation.current == a


def test_replacing_keeps_the_endpoint_in_use() -> None:
    a, b, c = parse_endpoints("a,b,c")
    rotation = Rotation((a, b))
    rotation.failed(a)
    rotation.replace((c, b))
    assert rotation.current == b
    rotation.replace((a, c))
    assert rotation.current == a
    assert rotation.all == (a, c)
