"""From a listen target to the addresses to bind, with clear errors when one cannot be had.

gRPC libraries are vague here: one binds a used port without a word, another binds only the
first address of a name, a third succeeds when any address works. So each transport binds the
plain addresses found here, one by one, after a trial with an ordinary socket.
"""

from __future__ import annotations

import asyncio
import errno
import socket

__all__ = ("ListenError", "resolve")

_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(Exception):
    """A listen address cannot be had; the message says which, why and what to do."""


def _split(target: str) -> tuple[str, int]:
    host, separator, port = target.rpartition(":")
    if not separator or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ListenError(f"listen address {target!r} is not of the form host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _trial(family: int, host: str, port: int) -> int:
    """Binds and listens for a moment; returns the port (chosen by the system when 0)."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
        bound: int = probe.getsockname()[1]
        return bound


async def resolve(target: str) -> list[str]:
    """The addresses behind `host:port`, each free at this moment; `localhost` gives two.

    Port 0 is replaced by a free port, the same one for every address. An address family that
    the machine lacks is left out as long as another one works. Raises ListenError.
    """
    host, port = _split(target)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {target}: the name {host!r} has no address ({error.strerror})"
        ) from error
    hosts = {str(address[0]): family for family, _, _, _, address in found}
    if not host:
        # Every interface: one IPv6 socket also takes IPv4 where the machine has IPv6.
        hosts = {"::": socket.AF_INET6} if "::" in hosts else hosts
    # IPv4 first, so that the chosen port is free where most clients connect.
    ordered = sorted(hosts.items(), key=lambda item: item[1] != socket.AF_INET)
    bound: list[str] = []
    missing: OSError | None = None
    for address, family in ordered:
        try:
            port = _trial(family, address, port)
        except OSError as error:
            if error.errno in _MISSING and len(ordered) > 1:
                missing = error
                continue
            raise ListenError(_reason(_join(address, port), error)) from error
        bound.append(_join(address, port))
    if not bound:
        raise ListenError(f"cannot listen on {target}: {missing}")
    return bound


def _reason(address: str, error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "another process listens there already; stop it or choose another port",
        errno.EACCES: "ports below 1024 need a privilege; choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {address}: {advice}"
