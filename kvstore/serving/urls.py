"""Listen and advertise URLs: which are acceptable, and which addresses they stand for."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

__all__ = ("ListenUrl", "BadUrlError", "check_advertised", "parse_listen")

_TCP_SCHEMES = ("http", "https")
_UNIX_SCHEMES = ("unix", "unixs")
_TLS_SCHEMES = ("https", "unixs")


class BadUrlError(ValueError):
    """A URL that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class ListenUrl:
    """Where to listen. A Unix socket has a `path` and no host or port."""

    text: str
    host: str
    port: int
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The numeric (host, port) pairs to bind.

        `localhost` is 127.0.0.1 and, on a machine that has it, ::1: clients resolve the name to
        either, so listening on one of them would make some of them fail.
        """
        if self.is_unix:
            return ()
        if self.host != "localhost":
            return ((self.host, self.port),)
        found = [("127.0.0.1", self.port)]
        if _has_ipv6_loopback():
            found.append(("::1", self.port))
        return tuple(found)

    def with_port(self, port: int) -> ListenUrl:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return ListenUrl(f"http://{host}:{port}", self.host, port)


def parse_listen(text: str) -> ListenUrl:
    """A URL to bind: an address or `localhost`, and a port; no other host names, as with etcd."""
    parts = _split(text)
    if parts.scheme in _UNIX_SCHEMES:
        return ListenUrl(text, "", 0, parts.netloc + parts.path)
    host, port = _host_and_port(parts, text)
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise BadUrlError(
                f"{text!r}: a URL to listen on needs an IP address (or localhost), "
                "since a name may stand for somebody else's address"
            ) from None
    return ListenUrl(text, host, port)


def check_advertised(text: str) -> None:
    """Refuses a URL that others could not use to reach this member."""
    parts = _split(text)
    if parts.scheme in _UNIX_SCHEMES:
        return
    host, port = _host_and_port(parts, text)
    if port == 0:
        raise BadUrlError(f"{text!r}: port 0 cannot be advertised, since nobody could dial it")
    if host in ("0.0.0.0", "::"):
        raise BadUrlError(
            f"{text!r}: {host} means every address of this machine and cannot be dialled by "
            "others; advertise the address under which they reach it"
        )


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise BadUrlError(f"{text!r} is not a URL ({error})") from None
    if parts.scheme in _TLS_SCHEMES:
        raise BadUrlError(
            f"{text!r}: this version does not serve TLS yet, so {parts.scheme} URLs are refused "
            "rather than served in the clear; use http behind a private network"
        )
    if parts.scheme not in _TCP_SCHEMES + _UNIX_SCHEMES:
        raise BadUrlError(f"{text!r} must start with http:// (or unix://)")
    if parts.query or parts.fragment:
        raise BadUrlError(f"{text!r} must be only scheme, host and port")
    if parts.scheme in _UNIX_SCHEMES:
        if not parts.netloc + parts.path:
            raise BadUrlError(f"{text!r} names no socket file")
    elif parts.path:
        raise BadUrlError(f"{text!r} must not have a path (nor end with '/')")
    return parts


def _host_and_port(parts: SplitResult, text: str) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        raise BadUrlError(f"{text!r}: the port must be a number from 0 to 65535") from None
    if port is None:
        raise BadUrlError(f"{text!r} has no port")
    if not parts.hostname:
        raise BadUrlError(f"{text!r} has no host")
    if parts.username or parts.password:
        raise BadUrlError("a URL with a user name or password in it is not accepted here")
    return parts.hostname, port


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
