"""gRPC channels to the instances of a service, one for each that is called.

grpcio for Python takes no name resolver of one's own, so a channel cannot follow the registry by
itself. This way is as short: the resolver picks the instance, the pool has its channel.

    pool = ChannelPool(resolver)
    resolver.call(lambda instance: Stub(pool.channel(instance)).Pay(request, timeout=timeout_s()))
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from kvstore.client.registry.limits import CHANNEL_LINGER_S
from kvstore.client.registry.resolving import ResolverBase
from kvstore.client.registry.values import Instance
from kvstore.client.registry.view import Change

__all__ = ("AsyncChannelPool", "ChannelPool")

_Key: TypeAlias = tuple[str, str, int]

_OPTIONS = (
    # A connection of its own: with a shared one, a new instance at an old address would wait out
    # the old one's pause between attempts to connect.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class _Pool:
    """The channels; who calls closes those that come out of `_channel` and `_all`."""

    def __init__(
        self,
        resolver: ResolverBase,
        make: Callable[[str], Any],
        port: str,
        linger_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._make = make
        self._port = port
        self._linger_s = linger_s
        self._clock = clock
        self._channels: dict[_Key, Any] = {}
        self._leaving: dict[_Key, float] = {}
        self._lock = threading.Lock()
        resolver.on_change(self._changed)

    def _channel(self, instance: Instance) -> tuple[Any, list[Any]]:
        """The instance's channel, and those that nobody needs any more."""
        key = self._key(instance)
        with self._lock:
            now = self._clock()
            over = [each for each, until in self._leaving.items() if until <= now and each != key]
            for each in over:
                del self._leaving[each]
            done = [self._channels.pop(each) for each in over]
            channel = self._channels.get(key)
            if channel is None:
                channel = self._channels[key] = self._make(instance.target_of(self._port))
            return channel, done

    def _all(self) -> list[Any]:
        with self._lock:
            channels, self._channels = list(self._channels.values()), {}
            self._leaving.clear()
            return channels

    def _changed(self, change: Change) -> None:
        present = {self._key(each) for each in change.view.instances}
        with self._lock:
            until = self._clock() + self._linger_s
            for key in self._channels:
                if key in present:
                    self._leaving.pop(key, None)
                else:
                    self._leaving.setdefault(key, until)

    def _key(self, instance: Instance) -> _Key:
        # One that was registered anew may be another process.
        return str(instance.name), instance.target_of(self._port), instance.create_revision


class ChannelPool(_Pool):
    """For the blocking client; safe in threads. Close it when done."""

    def __init__(
        self,
        resolver: ResolverBase,
        make: Callable[[str], Any] = lambda target: grpc.insecure_channel(target, _OPTIONS),
        *,
        port: str = "",
        linger_s: float = CHANNEL_LINGER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`make` opens a channel to "address:port" (TLS, credentials), `port` names the port if it
        is not the main one. The channel of an instance that left is closed `linger_s` later: calls
        under way can end."""
        super().__init__(resolver, make, port, linger_s, clock)

    def channel(self, instance: Instance) -> Any:
        """The channel to this instance."""
        channel, over = self._channel(instance)
        for each in over:
            each.close()
        return channel

    def close(self) -> None:
        """Close all channels; calls under way are canceled."""
        for each in self._all():
            each.close()


class AsyncChannelPool(_Pool):
    """For the asyncio client. Close it when done."""

    def __init__(
        self,
        resolver: ResolverBase,
        make: Callable[[str], Any] = lambda target: grpc.aio.insecure_channel(target, _OPTIONS),
        *,
        port: str = "",
        linger_s: float = CHANNEL_LINGER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As ChannelPool's."""
        super().__init__(resolver, make, port, linger_s, clock)
        self._closing: set[asyncio.Task[None]] = set()

    def channel(self, instance: Instance) -> Any:
        """The channel to this instance."""
        channel, over = self._channel(instance)
        for each in over:
            task = asyncio.ensure_future(each.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return channel

    async def close(self) -> None:
        """Close all channels; calls under way are canceled."""
        await asyncio.gather(*self._closing, *(each.close() for each in self._all()))
