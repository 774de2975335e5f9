"""Which addresses a check of the cluster may connect to; nothing else is ever dialled."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from kvstore.checks.reach import ANYWHERE, Reach, Unreachable, allowed, network
from kvstore.checks.spec import BadCheck

LOOPBACK = ("127.0.0.0/8", "::1/128")
TEN = ("10.0.0.0/8",)
EVERY_V6 = ("::/0",)
ROWS: list[tuple[str, tuple[str, ...], bool]] = [
    ("127.0.0.1", LOOPBACK, True),
    ("127.255.255.254", LOOPBACK, True),
    ("::1", LOOPBACK, True),
    ("10.0.0.1", LOOPBACK, False),
    ("0.0.0.0", LOOPBACK, False),
    ("::", LOOPBACK, False),
    ("169.254.169.254", LOOPBACK, False),
    ("169.254.169.254", TEN, False),
    ("fd00:ec2::254", LOOPBACK, False),
    ("10.1.2.3", TEN, True),
    ("11.0.0.1", TEN, False),
    ("127.0.0.1", TEN, False),
    # IPv4 in the clothes of IPv6 is IPv4.
    ("::ffff:127.0.0.1", LOOPBACK, True),
    ("::ffff:10.0.0.1", LOOPBACK, False),
    ("::ffff:10.0.0.1", TEN, True),
    ("::ffff:a9fe:a9fe", LOOPBACK, False),
    ("::ffff:169.254.169.254", EVERY_V6, False),
    # Tunnels and translation: both ends have to be allowed.
    ("2002:a9fe:a9fe::1", EVERY_V6, False),
    ("2002:a00:1::1", (*EVERY_V6, *TEN), True),
    ("64:ff9b::169.254.169.254", EVERY_V6, False),
    ("64:ff9b::10.0.0.1", (*EVERY_V6, *TEN), True),
    ("2001:0:a9fe:a9fe::1", EVERY_V6, False),
    ("fe80::1%lo", LOOPBACK, False),
    ("fe80::1%lo", ("fe80::/10",), True),
    ("localhost", ("0.0.0.0/0", "::/0"), False),
    ("", ("0.0.0.0/0", "::/0"), False),
]


@pytest.mark.parametrize(("address", "networks", "expected"), ROWS)
def test_addresses(address: str, networks: tuple[str, ...], expected: bool) -> None:
    assert allowed(address, map(network, networks)) is expected


def reach(*networks: str) -> Reach:
    return Reach(tuple(map(network, networks)))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "017700000001", "::1", "[::1]"[1:-1]]
)
def test_a_number_in_any_spelling_is_judged_as_what_it_means(host: str) -> None:
    async def go() -> None:
        found = await reach(*LOOPBACK).addresses(host, 80)
        assert found in (["127.0.0.1"], ["::1"])
        with pytest.raises(Unreachable, match="outside of the networks"):
            await reach(*TEN).addresses(host, 80)

    asyncio.run(go())


def test_one_bad_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def name_server(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if more.get("flags"):
            return real(host, port, *rest, **more)
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", name_server)

    async def go() -> None:
        guarded = reach(*LOOPBACK)
        with pytest.raises(Unreachable, match=r"means 10\.0\.0\.1"):
            await guarded.addresses("rebound.example", 80)
        both = reach(*LOOPBACK, *TEN)
        assert await both.addresses("rebound.example", 80) == ["127.0.0.1", "10.0.0.1"]
        assert asked == ["rebound.example"] * 2, "looked up once for each question"
        guarded.close()
        both.close()

    asyncio.run(go())


def test_a_name_without_an_address_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def name_server(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", name_server)

    async def go() -> None:
        anywhere = Reach(ANYWHERE)
        with pytest.raises(Unreachable, match="has no address: Name or service not known"):
            await anywhere.addresses("nowhere.example", 80)
        with pytest.raises(Unreachable):
            await anywhere.addresses("a" * 70 + ".example", 80)
        anywhere.close()

    asyncio.run(go())


@pytest.mark.parametrize("text", ["10.0.0.1/8", "loopback", "", "10.0.0.0/33"])
def test_what_is_no_network_is_told(text: str) -> None:
    with pytest.raises(BadCheck, match="is not a network"):
        network(text)
