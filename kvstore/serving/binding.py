"""Binds the sockets of HTTP and DNS, with a sentence when one cannot be had."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kvstore.serving.exits import ExitCode, ServerStopError
from kvstore.serving.urls import ListenUrl

__all__ = ("bind_all", "bind_datagrams", "socket_address")


def bind_all(urls: Sequence[ListenUrl], flag: str) -> list[socket.socket]:
    """One bound socket for each address of the URLs; all of them or none.

    Raises ServerStopError, naming `flag` as what to change.
    """
    with ExitStack() as opened:
        sockets = []
        for url in urls:
            port = url.port
            for host, _ in url.addresses():
                bound = opened.enter_context(_bind(host, port, url, flag))
                # With port 0 the system chooses once, and `localhost` gets the same port twice.
                port = bound.getsockname()[1]
                sockets.append(bound)
            if url.is_unix:
                sockets.append(opened.enter_context(_bind_unix(url, flag)))
        opened.pop_all()
        return sockets


def bind_datagrams(
    listeners: Sequence[socket.socket], url: ListenUrl, flag: str
) -> list[socket.socket]:
    """A UDP socket beside each of these of TCP, at the same address and port; all or none."""
    with ExitStack() as opened:
        sockets = []
        for each in listeners:
            host, port = each.getsockname()[:2]
            bound = _bind(host, port, url, flag, socket.SOCK_DGRAM)
            sockets.append(opened.enter_context(bound))
        opened.pop_all()
        return sockets


def socket_address(bound: socket.socket) -> str:
    """Where a bound socket is, as people write it."""
    name = bound.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(
    host: str,
    port: int,
    url: ListenUrl,
    flag: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # With UDP it would mean something else: several sockets at one port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] takes IPv4 as well, which is what people who write it mean.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServerStopError(ExitCode.FAILED, _sentence(url.text, flag, error)) from error
    return bound


def _bind_unix(url: ListenUrl, flag: str) -> socket.socket:
    path = Path(url.path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(url.path) == 0:
                    raise OSError(errno.EADDRINUSE, "in use")
            path.unlink()  # left behind by a process that is gone
        bound.bind(url.path)
    except OSError as error:
        bound.close()
        raise ServerStopError(ExitCode.FAILED, _sentence(url.text, flag, error)) from error
    return bound


def _sentence(where: str, flag: str, error: OSError) -> str:
    reason = {
        errno.EADDRINUSE: "the port is in use by another process; stop that one, or give "
        f"--{flag} another port",
        errno.EACCES: f"that needs a privilege; give --{flag} a port from 1024 up",
        errno.EADDRNOTAVAIL: f"this machine has no such address; correct --{flag}",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {where}: {reason}"
