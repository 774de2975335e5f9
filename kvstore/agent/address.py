"""Finds the address of this machine that others of the cluster's network can reach."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

__all__ = ("own_address",)


def own_address(targets: Iterable[str]) -> str:
    """The local address from which one of `targets` (host:port) is reached; empty if none is.

    Connecting a UDP socket sends nothing: it asks the routing table.
    """
    for target in targets:
        host, _, port = target.rpartition(":")
        with contextlib.suppress(OSError, ValueError, UnicodeError):
            rows = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
            for family, kind, protocol, _, address in rows:
                with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                    probe.connect(address)
                    return str(probe.getsockname()[0]).partition("%")[0]
    return ""
