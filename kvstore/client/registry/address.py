"""Finds the address that a program is reached at, from the way it reaches the cluster."""

from __future__ import annotations

import socket

__all__ = ("outgoing_address",)


def outgoing_address(target: str) -> str:
    """The own address that packets to `target` (host:port) leave from; none is sent.

    Behind address translation this is not what others see: then the address must be given.
    Raises ValueError when there is no way to tell.
    """
    if target.startswith("unix:"):
        raise ValueError("the cluster is reached by a local socket: give address=")
    host, _, port = target.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ValueError(f"give address=: {host!r} has no address ({error})") from None
    problem = ""
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # A datagram socket that connects asks only the routing table.
                probe.connect(place)
                return str(probe.getsockname()[0])
        except OSError as error:
            problem = str(error)
    raise ValueError(f"give address=: there is no route to {target} ({problem})")
