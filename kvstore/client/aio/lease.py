"""Leases for asyncio: a small task per lease keeps it alive."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.errors import KvError, LeaseNotFoundError
from kvstore.client.keepalive import KeepAliveSchedule
from kvstore.client.values import LeaseTimes

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncLease",)

logger = logging.getLogger("kvstore.client")


class AsyncLease:
    """A lease that is renewed in the background until it is revoked, released, or lost.

    Granted when it is awaited or entered; as a context manager it revokes the lease at the end,
    which deletes its keys:

        async with client.lease(10) as lease: ...
        lease = await client.lease(10)
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        ttl: int = 0,
        lease_id: int = 0,
        existing: bool = False,
        keep_alive: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._client = client
        self.id = lease_id
        self.ttl_s = ttl
        self._existing = existing
        self._keep_alive = keep_alive
        self._timeout_s = timeout
        self._lost = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self._schedule = KeepAliveSchedule()
        self._expires = 0.0
        self._granted = False
        self._task: asyncio.Task[None] | None = None

    def __await__(self) -> Generator[Any, None, Self]:
        return self._grant().__await__()

    async def __aenter__(self) -> Self:
        return await self._grant()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.revoke()

    @property
    def lost(self) -> bool:
        """The lease ended without our doing: it expired, or somebody revoked it."""
        return self._lost.is_set()

    async def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until the lease is lost; False when `timeout` seconds passed before."""
        try:
            async with asyncio.timeout(timeout):
                await self._lost.wait()
        except TimeoutError:
            return self.lost
        return True

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the lease is lost (at once if it is)."""
        if self.lost:
            callback()
        else:
            self._watchers.append(callback)

    def off_lost(self, callback: Callable[[], None]) -> None:
        """Forget a callback given to `on_lost`."""
        if callback in self._watchers:
            self._watchers.remove(callback)

    def remaining_s(self) -> float:
        """Seconds that the lease surely lives on if no renewal succeeds any more; 0 when lost."""
        if self.lost:
            return 0.0
        expires = self._schedule.expires(self.id) or self._expires
        return max(expires - self._client._clock(), 0.0)

    async def refresh(self) -> int:
        """Renew now; the TTL in seconds. Raises LeaseNotFoundError when the lease is gone."""
        sent = self._client._clock()
        ttl_s = (await self._client.keep_alive_once(self.id)).ttl_s
        if not self._schedule.renewed(self.id, ttl_s, sent) or ttl_s <= 0:
            self.release()
            self._set_lost()
            raise LeaseNotFoundError(f"lease {self.id:x} has ended")
        self._expires = sent + ttl_s
        return ttl_s

    async def time_to_live(self, *, keys: bool = False) -> LeaseTimes:
        """What the server says is left of it."""
        return await self._client.lease_time_to_live(self.id, keys=keys)

    def release(self) -> None:
        """Stop renewing; the lease ends by itself after its TTL."""
        self._schedule.drop(self.id)
        self._client._leases_kept.discard(self)
        if self._task is not None:
            self._task.cancel()

    async def revoke(self) -> None:
        """End the lease now and delete its keys; ending it twice is fine."""
        self.release()
        if self._task is not None:
            await asyncio.wait((self._task,))
        # Twice does no harm here, where the second refusal is ignored.
        call = operations.lease_revoke(self.id)._replace(effect=Effect.REPEATABLE)
        try:
            await self._client.call(call)
        except LeaseNotFoundError:
            pass

    async def _grant(self) -> Self:
        if self._granted:
            return self
        sent = self._client._clock()
        if self._existing:
            answer = await self._client.keep_alive_once(self.id, timeout=self._timeout_s)
            if answer.ttl_s <= 0:
                raise LeaseNotFoundError(f"lease {self.id:x} does not exist")
        else:
            answer = await self._client.lease_grant(
                self.ttl_s, lease_id=self.id, timeout=self._timeout_s
            )
        self.id, self.ttl_s = answer.id, answer.ttl_s
        self._expires = sent + answer.ttl_s
        self._granted = True
        if self._keep_alive:
            self._schedule.add(self.id, self.ttl_s, sent)
            self._client._leases_kept.add(self)
            self._task = self._client._spawn(self._renew(), "kvstore-keepalive")
        return self

    async def _renew(self) -> None:
        clock, schedule = self._client._clock, self._schedule
        while (wake := schedule.next_wake()) is not None:
            await asyncio.sleep(max(wake - clock(), 0.0))
            if schedule.expired(clock()):
                break
            for _, timeout_s in schedule.take_due(clock()):
                await self._renew_once(min(timeout_s, self.remaining_s()))
        self._client._leases_kept.discard(self)
        self._set_lost()

    async def _renew_once(self, timeout_s: float) -> None:
        sent = self._client._clock()
        try:
            answer = await self._client.keep_alive_once(self.id, timeout=timeout_s)
        except KvError as error:
            logger.debug("renewal of lease %x failed: %s", self.id, error)
            self._schedule.failed(self.id, self._client._clock())
        else:
            # Measured from the last attempt's start at the earliest, hence on the safe side.
            self._schedule.renewed(self.id, answer.ttl_s, sent)

    def _set_lost(self) -> None:
        if self.lost:
            return
        self._lost.set()
        watchers, self._watchers = self._watchers, []
        for callback in watchers:
            try:
                callback()
            except Exception:
                logger.exception("an on_lost callback of lease %x failed", self.id)
