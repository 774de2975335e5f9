"""Who is at an address: an index of the catalog, kept in step with it.

It is made from the stored JSON by looking for `"address":"…"`, which is forty times faster than
reading it. So it may name an instance too many (whoever uses it looks into the catalog), and after
a start it needs a moment to be complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from kvstore.gateways.dns.limits import INDEX_SLICE
from kvstore.gateways.dns.names import packed_address
from kvstore.registry.catalog import Catalog, Delta, Entry, Subscription
from kvstore.registry.names import InstanceName

__all__ = ("ReverseIndex", "Run")

_ADDRESS = re.compile(rb'"address"\s*:\s*"([^"\\]{2,45})"')


Run = Callable[[Iterator[None]], None]
"""Runs the steps of some work, a few in each turn of the loop."""


class ReverseIndex:
    """Instances by packed address."""

    def __init__(self, catalog: Catalog, run: Run) -> None:
        self._catalog = catalog
        self._run = run
        self._names: dict[bytes, set[InstanceName]] = {}
        self._subscription: Subscription | None = None
        self._made = 0
        self.complete = False

    def start(self) -> None:
        """Follows the catalog from now on."""
        self._subscription = self._catalog.subscribe(self._told)
        if self._catalog.ready:
            self._make_anew()

    def stop(self) -> None:
        """Ends that. Idempotent."""
        self._made += 1
        if self._subscription is not None:
            self._subscription.close()

    def find(self, packed: bytes) -> Iterable[InstanceName]:
        """Who may be there; whether it is so is in the catalog."""
        return self._names.get(packed, ())

    def _told(self, deltas: Sequence[Delta] | None) -> None:
        if deltas is None:
            self._make_anew()
            return
        for delta in deltas:
            before = _addresses(delta.before)
            after = _addresses(delta.after)
            if before != after:
                self._discard(delta.name, before)
                self._add(delta.name, after)

    def _add(self, name: InstanceName, addresses: Iterable[bytes]) -> None:
        for packed in addresses:
            self._names.setdefault(packed, set()).add(name)

    def _discard(self, name: InstanceName, addresses: Iterable[bytes]) -> None:
        for packed in addresses:
            names = self._names.get(packed)
            if names is not None:
                names.discard(name)
                if not names:
                    del self._names[packed]

    def _make_anew(self) -> None:
        self._made += 1
        self._names = {}
        self.complete = False
        self._run(self._steps(self._made))

    def _steps(self, made: int) -> Iterator[None]:
        for service in list(self._catalog.services):
            found = self._catalog.service(service)
            entries = list(found.entries.values()) if found is not None else []
            for begin in range(0, len(entries), INDEX_SLICE):
                if made != self._made:
                    return  # another run has begun, or nobody asks any more
                for entry in entries[begin : begin + INDEX_SLICE]:
                    self._add(entry.name, _addresses(entry))
                yield
        self.complete = self.complete or made == self._made


def _addresses(entry: Entry | None) -> set[bytes]:
    if entry is None:
        return set()
    found = (packed_address(each.decode("latin-1")) for each in _ADDRESS.findall(entry.value))
    return {packed for packed in found if packed is not None}
