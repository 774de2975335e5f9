"""The flags of the DNS front door, what they mean, and its sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from kvstore.gateways.dns.names import packed_address
from kvstore.gateways.dns.settings import BadZoneError, DnsSettings, make_settings
from kvstore.serving.binding import bind_all, bind_datagrams
from kvstore.serving.exits import ServerStopError
from kvstore.serving.settings import Settings, UsageError
from kvstore.serving.urls import BadUrlError, ListenUrl, parse_listen

__all__ = ("DnsConfig", "DnsSockets", "bind_dns", "build_dns_config")

_FLAG = "listen-dns"
_ANYWHERE = ("0.0.0.0", "::")
_TRIES = 20


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Where DNS is served (nowhere, if there is no address), and what it is told."""

    addresses: tuple[ListenUrl, ...]
    settings: DnsSettings


@dataclass(slots=True)
class DnsSockets:
    """Bound sockets: to each of one kind belongs one of the other, at the same port."""

    udp: list[socket.socket]
    tcp: list[socket.socket]


def build_dns_config(settings: Settings) -> DnsConfig:
    """Checks the flags; raises UsageError."""
    addresses = tuple(_address(text, settings.origin(_FLAG)) for text in settings.list(_FLAG))
    for each in addresses:
        if addresses.count(each) > 1:
            raise UsageError(f"{settings.origin(_FLAG)} has {each.text} twice")
    own = (packed_address(host) for each in addresses for host, _ in each.addresses())
    ttl_s = settings.seconds("dns-ttl")
    if ttl_s != int(ttl_s):
        raise UsageError(f"{settings.origin('dns-ttl')} must be whole seconds, as DNS counts them")
    try:
        made = make_settings(
            settings.text("dns-zone"),
            ttl_s=int(ttl_s),
            consul_domain=settings.text("dns-consul-domain"),
            datacenter=settings.text("dns-consul-datacenter"),
            own_zone=settings.text("dns-prefer-zone"),
            own_addresses=tuple(each for each in own if each is not None and any(each)),
        )
    except BadZoneError as problem:
        raise UsageError(f"--dns-…: {problem}") from None
    return DnsConfig(addresses, made)


def _address(text: str, origin: str) -> ListenUrl:
    """`127.0.0.1:8600`, `[::1]:8600`, `localhost:8600`."""
    if "/" in text:
        raise UsageError(f"{origin}: {text!r} must be an address and a port, as 127.0.0.1:8600")
    try:
        url = parse_listen(f"http://{text}")
    except BadUrlError as problem:
        raise UsageError(f"{origin}: {str(problem).replace('http://', '')}") from None
    return ListenUrl(text, url.host, url.port)


def bind_dns(addresses: Sequence[ListenUrl]) -> DnsSockets:
    """Binds UDP and TCP of all addresses, or raises ServerStopError with a sentence.

    Where the port is 0 the system chooses one for TCP, and UDP gets the same, if it is free.
    """
    bound = DnsSockets([], [])
    with ExitStack() as opened:
        for address in addresses:
            udp, tcp = _bind_both(address)
            for each in (*udp, *tcp):
                opened.enter_context(each)
            bound.udp += udp
            bound.tcp += tcp
        opened.pop_all()
    return bound


def _bind_both(address: ListenUrl) -> tuple[list[socket.socket], list[socket.socket]]:
    tries = 1 if address.port else _TRIES
    while True:
        tcp = bind_all([address], _FLAG)
        try:
            return bind_datagrams(tcp, address, _FLAG), tcp
        except ServerStopError:
            for each in tcp:
                with contextlib.suppress(OSError):
                    each.close()
            tries -= 1
            if not tries:
                raise
