"""Where checks may connect to: a name is looked up once, every address judged, then dialled as is.

Checks that the cluster runs are written by whoever may register an instance, but connect from
inside of the servers' network. So:
1. A name that has *any* address outside of the allowed networks is refused as a whole.
2. What is connected to is the address that was judged, never the name again (it could by then
   mean something else).
3. An IPv6 address that stands for an IPv4 one (::ffff:10.0.0.1) is judged as that one; one that
   leads to an IPv4 address by translation or a tunnel must be allowed in both ways.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, Final, TypeAlias

from kvstore.checks import limits
from kvstore.checks.spec import BadCheck

__all__ = ("ANYWHERE", "Network", "Reach", "Unreachable", "allowed", "network")

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

ANYWHERE: Final[tuple[Network, ...]] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""For an agent: its checks come from its own command line."""
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Unreachable(Exception):  # noqa: N818 - an outcome of a probe
    """A target that cannot or must not be connected to; the text is for people."""


def network(text: str) -> Network:
    """A network such as 10.0.0.0/8, or one address. Raises BadCheck."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise BadCheck(f"{text!r:.80} is not a network such as 10.0.0.0/8: {error}") from None


def allowed(text: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks, whatever else it stands for."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        address = IPv6Address(int(address))
    inside = tuple(networks)
    return all(any(each in net for net in inside) for each in _meanings(address))


def _meanings(address: Address) -> tuple[Address, ...]:
    """Every address that packets to this one may end at."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address.teredo is not None:
        return (address, *address.teredo)
    if address in _NAT64:
        return (address, IPv4Address(int(address) & 0xFFFF_FFFF))
    return (address,)


class Reach:
    """Looks names up, and lets through what is allowed."""

    def __init__(self, networks: Sequence[Network] = ANYWHERE) -> None:
        self._networks = tuple(networks)
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Gives the threads back; look-ups under way are left to themselves."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them allowed. Raises Unreachable."""
        found = await self._look_up(host, port)
        for address in found:
            if not allowed(address, self._networks):
                means = "" if address == host else f", which means {address},"
                raise Unreachable(
                    f"{host}{means} lies outside of the networks that checks may reach "
                    "(--check-allow-cidr)"
                )
        return found

    async def _look_up(self, host: str, port: int) -> list[str]:
        try:
            # Numbers in any spelling that the system takes, such as 127.1: without waiting.
            rows: list[Any] = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except (OSError, UnicodeError):
            rows = await self._ask_name_server(host, port)
        return list(dict.fromkeys(str(row[4][0]) for row in rows))

    async def _ask_name_server(self, host: str, port: int) -> list[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(
                limits.RESOLVER_THREADS, thread_name_prefix="check-names"
            )

        def ask() -> list[Any]:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a host name"
            raise Unreachable(f"{host} has no address: {reason}") from None
