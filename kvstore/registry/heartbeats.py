"""Heartbeats: from leases and names to keep-alives, many in one, and back to the TTLs.

Nothing here is written to the log. The answer is given to a callback and costs no task, except
where somebody asks for what this member has not heard of: it may have been registered elsewhere a
moment ago, so the member first makes sure that it is up to date.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kvstore.errors import EtcdError
from kvstore.registry.catalog import Catalog
from kvstore.registry.errors import not_written
from kvstore.registry.limits import HEARTBEAT_CHUNK
from kvstore.registry.names import InstanceName

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Beaten", "Heartbeats")

Beaten = Callable[[list[int] | None, EtcdError | None], None]
"""Gets the TTLs, 0 for what is not registered; or an error."""


class Heartbeats:
    """What front doors do with heartbeats."""

    def __init__(self, node: Node, catalog: Catalog) -> None:
        self._node = node
        self._catalog = catalog
        self._catching_up: dict[asyncio.Task[None], None] = {}

    def beat(self, leases: Sequence[int], names: Sequence[InstanceName], done: Beaten) -> None:
        """Instances are alive; `done` gets a TTL for each lease, then for each name."""
        catalog = self._catalog
        known = all(catalog.on_lease(lease) is not None for lease in leases) and all(
            catalog.entry(name) is not None for name in names
        )
        if known:
            self._renew([*leases, *map(self._lease_of, names)], done)
            return

        async def catch_up() -> None:
            try:
                await self._node.linearize()
                await catalog.wait_in_step()
            except EtcdError as error:
                done(None, not_written(error))
            else:
                self._renew([*leases, *map(self._lease_of, names)], done)

        task = asyncio.get_running_loop().create_task(catch_up())
        self._catching_up[task] = None
        task.add_done_callback(lambda done: self._catching_up.pop(done, None))

    def _lease_of(self, name: InstanceName) -> int:
        """The lease of an instance that the registry watches over; 0 if it is none."""
        entry = self._catalog.entry(name)
        return entry.lease if entry is not None and entry.owned else 0

    def _renew(self, leases: list[int], done: Beaten) -> None:
        """Renews in chunks, one after the other; a lease that is not an instance's is left be."""
        ours = [lease for lease in leases if self._catalog.on_lease(lease) is not None]
        renewed: list[int] = []

        def go_on() -> None:
            chunk = ours[len(renewed) : len(renewed) + HEARTBEAT_CHUNK]
            if not chunk:
                done(self._ttls(leases, dict(zip(ours, renewed, strict=True))), None)
            elif len(ours) == 1:
                # The way of a single keep-alive: a follower sends those of a turn together.
                self._node.lease_keep_alive(chunk[0], one_answered)
            else:
                self._node.renew_leases(chunk, answered)

        def one_answered(ttl: Any, error: EtcdError | None) -> None:
            answered(None if error is not None else [ttl or 0], error)

        def answered(ttls: Any, error: EtcdError | None) -> None:
            if error is not None:
                done(None, not_written(error))
                return
            renewed.extend(ttls)
            go_on()

        go_on()

    def _ttls(self, leases: list[int], renewed: dict[int, int]) -> list[int]:
        """The TTL of the heartbeat, which is shorter than that of the lease."""
        ttls = []
        for lease in leases:
            entry = self._catalog.on_lease(lease) if renewed.get(lease) else None
            ttls.append(0 if entry is None else entry.known.ttl_s)
        return ttls

    def close(self) -> None:
        """Gives up what waits."""
        for task in list(self._catching_up):
            task.cancel()
