"""Chooses the gRPC server for the client URLs and brings it up."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Protocol

from kvstore.api.address import ListenError
from kvstore.api.call import MethodTable
from kvstore.api.grpcio_transport import GrpcioTransport
from kvstore.serving.config import GrpcConfig
from kvstore.serving.exits import ExitCode, ServerStopError
from kvstore.serving.urls import ListenUrl

__all__ = (
    "Front",
    "MakeProtocol",
    "Transport",
    "choose_transport",
    "load_transport",
    "open_front",
)

MakeProtocol = Callable[[], asyncio.Protocol]

_NEVER_MS = 2**31 - 1
"""How gRPC writes "no pings"."""


class Transport(Protocol):
    """A gRPC server over one method table."""

    async def listen(self, target: str) -> list[str]: ...
    async def start(self) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class Front:
    """The gRPC servers of all client URLs."""

    def __init__(self, transports: Sequence[Transport], kind: str, addresses: list[str]) -> None:
        self._transports = transports
        self.kind = kind
        self.addresses = addresses
        """What was bound, as host:port or unix:path."""

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, gives open ones `grace_s` seconds, then fails them."""
        for transport in self._transports:
            await transport.stop(grace_s)


_MODULES = {
    "http2": "kvstore.api.http2.transport",
    "native": "kvstore.api.native_transport",
    "grpcio": "kvstore.api.grpcio_transport",
}
_PACKAGES = {"http2": ("hpack", "hpack"), "native": ("pygrpc_native", "pygrpc-native")}
"""What a transport needs beyond the plain installation: the module, and its package's name."""


def choose_transport(wanted: str) -> str:
    """`http2`, `native` or `grpcio`; raises ServerStopError when the wanted one is not installed.

    `auto` never means `native`: it refuses clients that put a URL into `:authority`, as Go's do
    when an endpoint is given as `http://…`.
    """
    if wanted == "auto":
        return "http2" if importlib.util.find_spec("hpack") is not None else "grpcio"
    if wanted in _PACKAGES:
        module, package = _PACKAGES[wanted]
        if importlib.util.find_spec(module) is None:
            raise ServerStopError(
                ExitCode.USAGE,
                f"--transport={wanted} needs the package {package}: pip install 'kvstore[fast]'",
            )
    return wanted


def load_transport(kind: str) -> None:
    """Imports it: early, since that would hold the loop of a running member for some 30 ms."""
    importlib.import_module(_MODULES[kind])


async def open_front(
    config: GrpcConfig,
    urls: Sequence[ListenUrl],
    table: MethodTable,
    http1: MakeProtocol | None = None,
) -> Front:
    """Listens on all URLs and serves; raises ServerStopError with a sentence.

    `http1` serves HTTP/1 clients on the same ports, where the transport can tell them apart
    (`http2` alone). Unix sockets are grpcio's where the server is native, which speaks TCP only.
    """
    kind = choose_transport(config.transport)
    tcp = [url for url in urls if not url.is_unix]
    unix = [url for url in urls if url.is_unix]
    unix_kind = "grpcio" if kind == "native" else kind
    transports: list[Transport] = []
    addresses: list[str] = []
    try:
        for group, wanted in ((tcp, kind), (unix, unix_kind)):
            if not group:
                continue
            transport = _make(wanted, config, table, http1)
            transports.append(transport)
            for url in group:
                target = f"unix:{url.path}" if url.is_unix else _target(url)
                addresses += await transport.listen(target)
        for transport in transports:
            await transport.start()
    except ListenError as error:
        raise ServerStopError(ExitCode.FAILED, f"{error} (--listen-client-urls)") from error
    return Front(transports, kind if tcp else unix_kind, addresses)


def _target(url: ListenUrl) -> str:
    return f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"


def _make(
    kind: str, config: GrpcConfig, table: MethodTable, http1: MakeProtocol | None
) -> Transport:
    keepalive_ms = int(config.keepalive_interval_s * 1000) or _NEVER_MS
    timeout_ms = int(config.keepalive_timeout_s * 1000) or _NEVER_MS
    # Imported late: the packages of two of them are optional.
    if kind == "http2":
        from kvstore.api.http2.transport import Http2Transport

        return Http2Transport(
            table,
            max_request_bytes=config.max_request_bytes,
            max_concurrent_streams=config.max_concurrent_streams,
            keepalive_time_ms=keepalive_ms,
            keepalive_timeout_ms=timeout_ms,
            http1=http1,
        )
    grpcio = GrpcioTransport(
        table,
        max_request_bytes=config.max_request_bytes,
        max_concurrent_streams=config.max_concurrent_streams,
        min_client_ping_ms=int(config.keepalive_min_time_s * 1000),
        keepalive_time_ms=keepalive_ms,
        keepalive_timeout_ms=timeout_ms,
    )
    if kind == "grpcio":
        return grpcio
    from kvstore.api.native_transport import NativeTransport

    return NativeTransport(
        table,
        grpcio,
        max_request_bytes=config.max_request_bytes,
        max_concurrent_streams=config.max_concurrent_streams,
        keepalive_time_ms=keepalive_ms,
        keepalive_timeout_ms=timeout_ms,
    )
