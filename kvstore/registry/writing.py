"""Changes of instances, on the condition that nobody else changed them meanwhile.

What a change makes of an instance is decided from the catalog and proposed with the revision
that it was decided from. Who comes too late looks again: the catalog is in step with the store
by the time the refusal is known. After a few times the caller is told (ABORTED).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kvstore import errors
from kvstore.errors import EtcdError
from kvstore.machine import BatchAction, BatchFailure, BatchItem, BatchOutcome
from kvstore.registry import limits
from kvstore.registry.catalog import Catalog, Entry
from kvstore.registry.errors import BATCH_REFUSED, CONTENDED, no_instance, not_written
from kvstore.registry.model import Instance, encode
from kvstore.registry.names import InstanceName, instance_key

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Change", "Writer")

Change = Callable[[Instance, int], Instance]
"""(as it is, Unix time in ms) → as it is to be; the same object: there is nothing to change."""


class Writer:
    """Proposes changes and says what came of them."""

    def __init__(self, node: Node, catalog: Catalog) -> None:
        self._node = node
        self._catalog = catalog

    async def find(self, name: InstanceName) -> Entry | None:
        """An entry of the catalog; one that is missing here may only not have arrived yet."""
        await self._catalog.wait_in_step()
        entry = self._catalog.entry(name)
        if entry is None:
            await self.catch_up()
            entry = self._catalog.entry(name)
        return entry

    async def instance(self, name: InstanceName) -> Entry:
        """`find` of something that has to be there, and has to be an instance."""
        entry = await self.find(name)
        if entry is None or entry.instance is None:
            raise no_instance(name)
        return entry

    async def catch_up(self) -> None:
        """Returns when the catalog is as new as the cluster is now."""
        try:
            await self._node.linearize()
        except EtcdError as error:
            raise not_written(error) from None
        await self._catalog.wait_in_step()

    async def submit(self, items: Sequence[BatchItem]) -> tuple[int, list[BatchOutcome]]:
        """Proposes items: the revision, and what became of each. Raises when it failed whole."""
        try:
            answer = await self._node.submit_batch(items)
        except EtcdError as error:
            raise not_written(error) from None
        return answer.revision, answer.outcomes

    async def submit_one(self, item: BatchItem) -> int:
        """Proposes one item: the revision, or 0 when it was decided from an old state."""
        revision, (outcome,) = await self.submit((item,))
        return revision if _applied(outcome) else 0

    async def change_one(self, name: InstanceName, change: Change) -> Entry:
        """Changes one instance: the entry as it is then. NOT_FOUND when it is not there."""
        await self.instance(name)
        changed = await self.change((name,), change)
        if name not in changed:
            raise no_instance(name)
        return changed[name]

    async def change(
        self, names: Iterable[InstanceName], change: Change
    ) -> dict[InstanceName, Entry]:
        """Changes instances: the entries as they are then, without those that are gone."""
        done: dict[InstanceName, Entry] = {}
        todo = list(names)
        for _ in range(limits.CHANGE_ATTEMPTS):
            await self._catalog.wait_in_step()
            again: list[InstanceName] = []
            while todo:
                todo = await self._change_some(todo, change, done, again)
            if not again:
                return done
            todo = again
        raise CONTENDED

    async def _change_some(
        self,
        todo: Sequence[InstanceName],
        change: Change,
        done: dict[InstanceName, Entry],
        again: list[InstanceName],
    ) -> list[InstanceName]:
        """As many as fit into one entry of the log; returns the rest."""
        now_ms = self._node.wall_ms()
        items: list[BatchItem] = []
        entries: list[Entry] = []
        size = taken = 0
        while taken < len(todo) and len(items) < limits.KEEPER_BATCH_ITEMS:
            if size >= limits.KEEPER_BATCH_BYTES:
                break
            name = todo[taken]
            taken += 1
            if taken % limits.KEEPER_SLICE_ITEMS == 0:
                await asyncio.sleep(0)
            entry = self._catalog.entry(name)
            if entry is None or entry.instance is None:
                continue
            after = change(entry.instance, now_ms)
            if after is entry.instance:
                done[name] = entry
                continue
            items.append(
                BatchItem(
                    instance_key(name),
                    entry.revision,
                    BatchAction.PUT_KEEP,
                    encode(after),
                    reason=after.reason.line,
                )
            )
            entries.append(entry)
            size += len(items[-1].value)
        if items:
            revision, outcomes = await self.submit(items)
            for entry, item, outcome in zip(entries, items, outcomes, strict=True):
                if _applied(outcome):
                    done[entry.name] = Entry(
                        entry.name, item.value, revision, entry.lease, entry.created
                    )
                else:
                    again.append(entry.name)
        return list(todo[taken:])


def _applied(outcome: BatchOutcome) -> bool:
    """False: it was decided from an old state. Raises for what trying again does not mend."""
    match outcome.failure:
        case BatchFailure.NONE:
            return True
        case BatchFailure.CONFLICT | BatchFailure.LEASE_EXISTS | BatchFailure.LEASE_NOT_FOUND:
            return False
        case BatchFailure.NO_SPACE:
            raise errors.NO_SPACE
    raise BATCH_REFUSED
