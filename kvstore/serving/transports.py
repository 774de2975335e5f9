"""Chooses the gRPC server for the client URLs and brings it up."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

from kvstore.api.address import ListenError
from kvstore.api.call import MethodTable
from kvstore.api.grpcio_transport import GrpcioTransport
from kvstore.serving.config import GrpcConfig
from kvstore.serving.exits import ExitCode, ServerStopError
from kvstore.serving.urls import ListenUrl

__all__ = ("Front", "Transport", "choose_transport", "open_front")

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


def choose_transport(wanted: str) -> str:
    """`grpcio` or `native`; raises ServerStopError when native is wanted but not installed."""
    if wanted == "grpcio":
        return wanted
    if importlib.util.find_spec("pygrpc_native") is not None:
        return "native"
    if wanted == "native":
        raise ServerStopError(
            ExitCode.USAGE,
            "--transport=native needs the package pygrpc-native: pip install 'kvstore[fast]'",
        )
    return "grpcio"


async def open_front(config: GrpcConfig, urls: Sequence[ListenUrl], table: MethodTable) -> Front:
    """Listens on all URLs and serves; raises ServerStopError with a sentence.

    Unix sockets are always grpcio's: the native server speaks TCP only.
    """
    kind = choose_transport(config.transport)
    tcp = [url for url in urls if not url.is_unix]
    unix = [url for url in urls if url.is_unix]
    transports: list[Transport] = []
    addresses: list[str] = []
    try:
        for group, wanted in ((tcp, kind), (unix, "grpcio")):
            if not group:
                continue
            transport = _make(wanted, config, table)
            transports.append(transport)
            for url in group:
                target = f"unix:{url.path}" if url.is_unix else _target(url)
                addresses += await transport.listen(target)
        for transport in transports:
            await transport.start()
    except ListenError as error:
        raise ServerStopError(ExitCode.FAILED, f"{error} (--listen-client-urls)") from error
    return Front(transports, kind if tcp else "grpcio", addresses)


def _target(url: ListenUrl) -> str:
    return f"[{url.host}]:{url.port}" if ":" in url.host else f"{url.host}:{url.port}"


def _make(kind: str, config: GrpcConfig, table: MethodTable) -> Transport:
    keepalive_ms = int(config.keepalive_interval_s * 1000) or _NEVER_MS
    timeout_ms = int(config.keepalive_timeout_s * 1000) or _NEVER_MS
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
    # Imported late: its package is optional.
    from kvstore.api.native_transport import NativeTransport

    return NativeTransport(
        table,
        grpcio,
        max_request_bytes=config.max_request_bytes,
        max_concurrent_streams=config.max_concurrent_streams,
        keepalive_time_ms=keepalive_ms,
        keepalive_timeout_ms=timeout_ms,
    )
