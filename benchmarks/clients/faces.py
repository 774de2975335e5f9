"""The clients that are compared, each behind the same few methods.

Nothing here is imported before its client is chosen: `etcd3` and `kvstore` bring generated code of
the same names, which one process cannot hold twice.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

__all__ = ("FACES", "AsyncFace", "Etcd3Face", "Face", "KvstoreAsyncFace")


class Face:
    """Ours, which blocks; shared by threads."""

    def __init__(self, host: str, port: int) -> None:
        module = importlib.import_module("kvstore.client")
        self.client: Any = module.Client(f"{host}:{port}")

    def put(self, key: bytes, value: bytes) -> None:
        self.client.put(key, value)

    def get(self, key: bytes) -> bytes:
        return bytes(self.client.get(key).value)

    def watch(self, prefix: bytes) -> Iterator[list[int]]:
        """Revisions of the events as they come, some at a time; stands when this returns."""
        watch = self.client.watch(prefix, prefix=True)
        return ([event.kv.mod_revision for event in each.events] for each in watch)

    def close(self) -> None:
        self.client.close()


class Etcd3Face(Face):
    """`etcd3` from the Python Package Index."""

    def __init__(self, host: str, port: int) -> None:
        self.client = importlib.import_module("etcd3").client(host=host, port=port, timeout=10)

    def get(self, key: bytes) -> bytes:
        value, _ = self.client.get(key)
        return bytes(value)

    def watch(self, prefix: bytes) -> Iterator[list[int]]:
        events, _ = self.client.watch_prefix(prefix)
        return ([event.mod_revision] for event in events)


class AsyncFace:
    """`aetcd`, which is awaited."""

    def __init__(self, host: str, port: int) -> None:
        module = importlib.import_module("aetcd")
        self.client: Any = module.Client(host=host, port=port, timeout=10)

    async def put(self, key: bytes, value: bytes) -> None:
        await self.client.put(key, value)

    async def get(self, key: bytes) -> bytes:
        return bytes((await self.client.get(key)).value)

    async def watch(self, prefix: bytes) -> AsyncIterator[list[int]]:
        watch = await self.client.watch_prefix(prefix)

        async def revisions() -> AsyncIterator[list[int]]:
            async for event in watch:
                yield [event.kv.mod_revision]

        return revisions()

    async def close(self) -> None:
        await self.client.close()


class KvstoreAsyncFace(AsyncFace):
    """Ours, awaited."""

    def __init__(self, host: str, port: int) -> None:
        module = importlib.import_module("kvstore.client")
        self.client = module.AsyncClient(f"{host}:{port}")

    async def watch(self, prefix: bytes) -> AsyncIterator[list[int]]:
        watch = await self.client.watch(prefix, prefix=True)

        async def revisions() -> AsyncIterator[list[int]]:
            async for each in watch:
                yield [event.kv.mod_revision for event in each.events]

        return revisions()


FACES: dict[str, type[Face] | type[AsyncFace]] = {
    "Client": Face,
    "etcd3": Etcd3Face,
    "AsyncClient": KvstoreAsyncFace,
    "aetcd": AsyncFace,
}
