"""Registrations for asyncio: one task per client sends the heartbeats of all of them."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kvstore.client.aio.signal import Signal
from kvstore.client.errors import ClientClosedError, InvalidRequestError, KvError
from kvstore.client.registry import operations
from kvstore.client.registry.answers import DeregisterResult, RegisterResult
from kvstore.client.registry.limits import (
    LEAVE_TIMEOUT_S,
    LINGER_S,
    REGISTER_TIMEOUT_S,
    REGISTRATIONS_TOGETHER,
)
from kvstore.client.registry.registration import (
    RegistrationBase,
    RegistrationState,
    Schedule,
)
from kvstore.client.registry.sigterm import Sigterm
from kvstore.client.registry.values import Instance, Status
from kvstore.errors import Code

if TYPE_CHECKING:
    from kvstore.client.aio.client import AsyncClient

__all__ = ("AsyncHeart", "AsyncRegistration")

logger = logging.getLogger("kvstore.client")


class AsyncRegistration(RegistrationBase):
    """An instance that is kept registered until `deregister`, `close`, or the client's `close`.

    Begins when it is awaited, or entered with `async with`, which deregisters it at the end.
    """

    def __init__(
        self,
        client: AsyncClient,
        wanted: Instance,
        drain_s: float,
        *,
        required: bool,
        handle_sigterm: bool,
        timeout: float | None,
    ) -> None:
        super().__init__(wanted, drain_s, client._random)
        self._client = client
        self._required = required
        self._handle_sigterm = handle_sigterm
        self._timeout_s = timeout
        # Held over each call about this instance, so that none overtakes another.
        self._calls = asyncio.Lock()
        self._begun = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begin().__await__()

    async def __aenter__(self) -> Self:
        return await self._begin()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def set_status(
        self, status: Status, reason: str = "", *, timeout: float | None = None
    ) -> Instance:
        """Say how the instance is. When the cluster is away this raises, and the status is told
        all the same as soon as the cluster is back."""
        if self._state is RegistrationState.ENDED:
            raise ClientClosedError(f"{self._wanted.name} was deregistered")
        self._reports(status)
        name = self._wanted
        call = operations.set_status(
            name.service,
            name.id,
            namespace=name.namespace,
            reported=status,
            reason=reason,
            timeout=timeout,
        )
        async with self._calls:
            try:
                self._told = (await self._client.call(call)).instance
            except KvError:
                self._client.registry._heart.lose(self)
                raise
        return self._told

    async def deregister(
        self, *, wait: float | None = None, reason: str = "", timeout: float | None = None
    ) -> DeregisterResult:
        """Remove the instance, first of all that a stopping program does; no more heartbeats.

        With `wait` this returns once all who watch have acknowledged it, or after so many seconds;
        see `acknowledged` of the result. If it fails, the instance expires after TTL and grace.
        """
        self.release()
        name = self._wanted
        async with self._calls:
            return await self._client.call(
                operations.deregister(
                    name.service,
                    name.id,
                    namespace=name.namespace,
                    wait=wait,
                    reason=reason,
                    timeout=timeout,
                )
            )

    def release(self) -> None:
        """Send no more heartbeats and leave the instance as it is: it expires."""
        self._end()
        self._client.registry._heart.drop(self)

    async def close(self) -> None:
        """Deregister without waiting, and without raising: what fails is logged."""
        if self._state is RegistrationState.ENDED:
            return
        try:
            await self.deregister()
        except KvError as error:
            self._last_error = error
            logger.warning("%s could not be deregistered: %s", self._wanted.name, error)

    async def _begin(self) -> Self:
        if not self._begun:
            self._begun = True
            await self._client.registry._heart.keep(
                self,
                required=self._required,
                handle_sigterm=self._handle_sigterm,
                timeout=self._timeout_s,
            )
        return self

    async def _register(self, timeout: float | None) -> None:
        """Register now; raises what the server says."""
        async with self._calls:
            if self._state is RegistrationState.ENDED:
                return
            sent, changes = self._client._clock(), self._changes
            call = operations.register_instance(self._wanted, timeout=timeout)
            result: RegisterResult = await self._client.call(call)
            self._registered(result, sent, changes)

    async def _leave(self) -> None:
        """Deregister; return soon after everyone knows it, or when the drain time is over."""
        loop = asyncio.get_running_loop()
        over = loop.time() + self._drain_s
        try:
            done = await self.deregister(
                wait=self._drain_s, reason="SIGTERM", timeout=self._drain_s + LEAVE_TIMEOUT_S
            )
        except KvError as error:
            self._last_error = error
            logger.warning("%s could not be deregistered: %s", self._wanted.name, error)
            known = False
        else:
            known = done.acknowledged is not None and done.acknowledged.everyone
        left = over - loop.time()
        await asyncio.sleep(max(min(left, LINGER_S) if known else left, 0.0))


class AsyncHeart:
    """The heartbeats of a client; its task runs while there is an instance to keep."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._schedule: Schedule[AsyncRegistration] = Schedule()
        self._changed = Signal()
        self._task: asyncio.Task[None] | None = None
        self._news = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sigterm = Sigterm(self._begin_leaving)
        self._leavers: set[AsyncRegistration] = set()

    async def keep(
        self,
        registration: AsyncRegistration,
        *,
        required: bool,
        handle_sigterm: bool,
        timeout: float | None,
    ) -> None:
        """Register, then keep alive. Raises what the registration failed with, unless it is not
        `required` now and may succeed later."""
        if handle_sigterm:
            self._loop = asyncio.get_running_loop()
            self._sigterm.install()
            self._leavers.add(registration)
        try:
            await registration._register(timeout)
        except KvError as error:
            if required or isinstance(error, (InvalidRequestError, ClientClosedError)):
                registration._end()
                self._forget_leaver(registration)
                raise
            registration._failed(error, self._client._clock())
        self._schedule.add(registration)
        if (self._task is None or self._task.done()) and not self._closed:
            self._task = self._client._spawn(self._run(), "kvstore-heartbeat")
        self._wake()

    def lose(self, registration: AsyncRegistration) -> None:
        """Register it again now, in the background."""
        registration._lose(self._client._clock())
        self._wake()

    def drop(self, registration: AsyncRegistration) -> None:
        """Keep it no longer."""
        self._schedule.drop(registration)
        self._forget_leaver(registration)
        self._wake()

    def close(self) -> None:
        """No more heartbeats; the instances expire, unless they were deregistered before."""
        self._closed = True
        for registration in self._schedule:
            registration._end()
        self._leavers.clear()
        self._sigterm.remove()
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        self._news = True
        self._changed.fire()

    def _forget_leaver(self, registration: AsyncRegistration) -> None:
        self._leavers.discard(registration)
        if not self._leavers:
            self._sigterm.remove()

    async def _run(self) -> None:
        clock = self._client._clock
        while len(self._schedule):
            self._news = False
            work = self._schedule.due(clock(), REGISTRATIONS_TOGETHER)
            if work.heartbeats:
                await self._beat(work.heartbeats, work.timeout_s)
            if work.registrations:
                await asyncio.gather(*map(self._register_again, work.registrations))
            wake = self._schedule.next_wake()
            pause = None if wake is None else max(wake - clock(), 0.0)
            if pause != 0.0:
                await self._changed.wait_for(lambda: self._news, pause)

    async def _register_again(self, registration: AsyncRegistration) -> None:
        with self._told(registration):
            await registration._register(REGISTER_TIMEOUT_S)

    async def _beat(self, registrations: Sequence[AsyncRegistration], timeout_s: float) -> None:
        sent = self._client._clock()
        with self._told(*registrations):
            leases = [each.instance.lease for each in registrations]
            answer = await self._client.call(operations.heartbeat(leases, timeout=timeout_s))
            for registration, ttl_s in zip(registrations, answer.ttl_s, strict=True):
                registration._beat(ttl_s, sent)

    @contextmanager
    def _told(self, *registrations: AsyncRegistration) -> Iterator[None]:
        """What fails inside is told to these registrations, and goes no further."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, KvError):
                logger.exception("a heartbeat failed")
                error = KvError(f"heartbeat: {error!r}", code=Code.INTERNAL)
            for registration in registrations:
                registration._failed(error, self._client._clock())

    # At a SIGTERM.

    def _begin_leaving(self) -> None:
        # The handler runs between any two steps of the loop's thread: it only wakes the loop.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spawn_leaving)

    def _spawn_leaving(self) -> None:
        self._client._spawn(self._all_leave(), "kvstore-leave")

    async def _all_leave(self) -> None:
        await asyncio.gather(*(each._leave() for each in list(self._leavers)))
        self._sigterm.left()
