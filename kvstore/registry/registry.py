"""The service registry of one member: its parts, and how they hang on the member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvstore.checks.reach import Network
from kvstore.machine import Change
from kvstore.registry.catalog import Catalog
from kvstore.registry.checking import Checking
from kvstore.registry.history import History
from kvstore.registry.keeper import Keeper
from kvstore.registry.service import RegistryService

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Registry",)


class Registry:
    """Built on a started node, before the front doors open; the node's `Overlay`."""

    def __init__(self, node: Node, check_networks: Sequence[Network] | None = None) -> None:
        """`check_networks`: where agentless checks may connect to; None: none are run here."""
        self.node = node
        self.catalog = Catalog(node)
        self.history = History(node)
        self._keeper = Keeper(node, self.catalog)
        self.service = RegistryService(node, self.catalog, self.history)
        self.checking: Checking | None = None
        if check_networks is not None:
            self.checking = Checking(node, self.catalog, self.service, check_networks)

    def start(self) -> None:
        """Begins to follow the node: reads what there is, and takes up the leader's duty."""
        self.node.support(self)
        self.catalog.load()
        if self.checking is not None:
            self.checking.start()

    async def stop(self) -> None:
        """Ends the leader's duty; before the node stops. The catalog goes on answering."""
        if self.checking is not None:
            await self.checking.stop()
        self.service.close()
        await self._keeper.stop()

    # ---- what the node tells and asks ------------------------------------------------------

    def changed(self, changes: Sequence[Change] | None) -> None:
        self.catalog.changed(changes)

    def members_changed(self) -> None:
        self.catalog.members_changed()

    def led(self, leads: bool) -> None:
        self._keeper.led(leads)

    def renewed(self, lease_ids: Sequence[int], now: float) -> None:
        self._keeper.renewed(lease_ids, now)

    def held(self, lease_id: int) -> bool:
        return self._keeper.held(lease_id)
