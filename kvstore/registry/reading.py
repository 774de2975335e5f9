"""Answers from the catalog: the instances of a service, and what services there are.

A service can have ten thousand instances, and reading one for the first time takes 20 µs. So what
is to be answered is fixed at once (entries never change), and then read in slices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from kvstore.registry.catalog import Catalog, Entry, GuardNote, Service
from kvstore.registry.limits import READING_SLICE_INSTANCES
from kvstore.registry.names import ServiceName, service_prefix
from kvstore.registry.selection import Selection

__all__ = ("Answer", "Summary", "chosen_entries", "read_entries", "read_service", "summarise")


class Answer(NamedTuple):
    """The instances of a service."""

    revision: int
    """The store's revision that it is as of."""
    service_revision: int
    entries: list[Entry]
    """Those that were wanted, in order; each is an instance."""
    fell_back: bool
    guard: GuardNote | None
    strays: dict[bytes, str]


class Summary(NamedTuple):
    """One service in a list."""

    name: ServiceName
    revision: int
    instances: int
    routable: int
    stale: int
    by_status: dict[str, int]
    tags: list[str]
    versions: list[str]
    guard: GuardNote | None


async def read_entries(entries: Iterable[Entry]) -> None:
    """Reads the JSON of entries, in slices."""
    for at, entry in enumerate(entries, 1):
        entry.instance  # noqa: B018 - reads it
        if at % READING_SLICE_INSTANCES == 0:
            await asyncio.sleep(0)


def chosen_entries(entries: Iterable[Entry], selection: Selection) -> tuple[list[Entry], bool]:
    """The entries of the instances that a selection makes of a service, and if it fell back."""
    by_name = {entry.name: entry for entry in entries if entry.instance is not None}
    chosen, fell_back = selection.choose(entry.known for entry in by_name.values())
    return [by_name[instance.name] for instance in chosen], fell_back


async def read_service(catalog: Catalog, name: ServiceName, selection: Selection) -> Answer:
    """The instances of one service as of now."""
    await catalog.wait_ready()
    service = catalog.service(name)
    revision, guard = catalog.revision, catalog.guards.get(name)
    service_revision = catalog.service_revision(name)
    entries = list(service.entries.values()) if service is not None else []
    prefix = service_prefix(name)
    strays = {key: why for key, why in catalog.strays.items() if key.startswith(prefix)}
    await read_entries(entries)
    chosen, fell_back = chosen_entries(entries, selection)
    for entry in entries:
        if entry.problem:
            strays[prefix + entry.name.id.encode()] = entry.problem
    return Answer(revision, service_revision, chosen, fell_back, guard, strays)


async def summarise(catalog: Catalog, namespace: str, prefix: str) -> list[Summary]:
    """Services by name."""
    await catalog.wait_ready()
    found = [
        (service, list(service.entries.values()), catalog.guards.get(name))
        for name, service in sorted(catalog.services.items())
        if namespace in ("", name.namespace) and name.service.startswith(prefix)
    ]
    summaries = []
    for service, entries, guard in found:
        await read_entries(entries)
        summaries.append(_summary(service, entries, guard))
    return summaries


def _summary(service: Service, entries: list[Entry], guard: GuardNote | None) -> Summary:
    by_status: dict[str, int] = {}
    tags: dict[str, None] = {}
    versions: dict[str, None] = {}
    routable = stale = count = 0
    for entry in entries:
        instance = entry.instance
        if instance is None:
            continue
        count += 1
        routable += instance.routable
        stale += instance.stale
        by_status[instance.status] = by_status.get(instance.status, 0) + 1
        tags.update(dict.fromkeys(instance.tags))
        if instance.version:
            versions[instance.version] = None
    return Summary(
        service.name,
        service.revision,
        count,
        routable,
        stale,
        by_status,
        sorted(tags),
        sorted(versions),
        guard,
    )
