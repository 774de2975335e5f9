"""The asyncio client: every operation as a method, plus watches, leases, locks, elections."""

# ruff: noqa: ASYNC109 - a timeout argument is the shape that both clients share

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from kvstore.client import operations, recipes
from kvstore.client.aio.lease import AsyncLease
from kvstore.client.aio.recipes import AsyncRecipes
from kvstore.client.aio.running import run_program
from kvstore.client.aio.watch import AsyncWatch
from kvstore.client.base import ClientBase, unknown_if_write
from kvstore.client.call import Effect, Unary
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import (
    ClientClosedError,
)
from kvstore.client.keys import Key, span
from kvstore.client.limits import SCAN_PAGE
from kvstore.client.methods import adopt
from kvstore.client.recipes.line import strange_answer
from kvstore.client.recipes.steps import Bell, Program
from kvstore.client.registry.aio import AsyncRegistry
from kvstore.client.requests import watch_request
from kvstore.client.snapshots import SnapshotCheck, SnapshotTarget, Target
from kvstore.client.txn import Txn
from kvstore.client.values import (
    AlarmsResult,
    AlarmType,
    EndpointHealth,
    KeyValue,
    SnapshotInfo,
    TxnResult,
    WatchFilter,
)
from kvstore.pb import rpc_pb2 as pb

__all__ = ("AsyncBoundTxn", "AsyncClient")

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    build: Callable[P, Unary[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.call(build(*args, **kwargs))

    adopt(method, build)
    return method


class AsyncBoundTxn(Txn):
    """A transaction of a client; see `Txn`."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def commit(self, *, timeout: float | None = None) -> TxnResult:
        """Send it."""
        return await self._client.call(self.build(timeout))


class AsyncClient(AsyncRecipes, ClientBase):
    """A client of an etcd v3 cluster; may be shared by threads.

    Close it when done (it is a context manager): its watches end, its leases are renewed no
    longer, its connections are closed, its threads are gone.
    """

    put = _awaited(operations.put)
    get = _awaited(operations.get)
    range = _awaited(operations.range)
    get_prefix = _awaited(operations.get_prefix)
    delete = _awaited(operations.delete)
    delete_prefix = _awaited(operations.delete_prefix)
    compact = _awaited(operations.compact)
    lease_grant = _awaited(operations.lease_grant)
    lease_revoke = _awaited(operations.lease_revoke)
    lease_time_to_live = _awaited(operations.lease_time_to_live)
    leases = _awaited(operations.leases)
    keep_alive_once = _awaited(operations.keep_alive_once)
    member_list = _awaited(operations.member_list)
    member_add = _awaited(operations.member_add)
    member_remove = _awaited(operations.member_remove)
    member_update = _awaited(operations.member_update)
    member_promote = _awaited(operations.member_promote)
    status = _awaited(operations.status)
    alarms = _awaited(operations.alarms)
    alarm = _awaited(operations.alarm)
    defragment = _awaited(operations.defragment)
    hash_kv = _awaited(operations.hash_kv)

    registry: AsyncRegistry
    """The service registry."""

    def _set_up(self) -> None:
        self.registry = AsyncRegistry(self)
        self._watches: set[AsyncWatch] = set()
        self._leases_kept: set[AsyncLease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing_bell = Bell(lambda: ClientClosedError("the client was closed"))

    async def close(self) -> None:
        """End everything this client has under way; closing twice is fine."""
        with self._lock:
            self._closed = True
            channels, self._channels = list(self._channels.values()), {}
        if self._pid != os.getpid():
            return  # the channels belong to the parent process
        self._closing_bell.ring()
        self.registry._close()
        for lease in list(self._leases_kept):
            lease.release()
        for watch in list(self._watches):
            watch._stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def call(self, call: Unary[T]) -> T:
        """Make one call, with failover and repetition as its kind allows."""
        return await self._invoke(call, math.inf)

    async def scan(
        self, prefix: Key, *, revision: int = 0, page: int = SCAN_PAGE, keys_only: bool = False
    ) -> AsyncIterator[KeyValue]:
        """Every key under `prefix`, of one revision, read `page` keys at a time."""
        start, end = span(prefix, prefix=True)
        while True:
            found = await self.range(
                start, range_end=end, revision=revision, limit=page, keys_only=keys_only
            )
            for each in found.kvs:
                yield each
            if not found.more:
                return
            if not found.kvs:
                raise strange_answer()
            revision = revision or found.header.revision
            start = found.kvs[-1].key + b"\0"

    def txn(self) -> AsyncBoundTxn:
        """`await client.txn().when(...).then(...).otherwise(...).commit()`; see `Txn`."""
        return AsyncBoundTxn(self)

    def watch(
        self,
        key: Key,
        *,
        prefix: bool = False,
        from_key: bool = False,
        range_end: Key = b"",
        start_revision: int = 0,
        prev_kv: bool = False,
        filters: Iterable[WatchFilter] = (),
        progress_notify: bool = False,
        fragment: bool = False,
        require_leader: bool = False,
        timeout: float | None = None,
    ) -> AsyncWatch:
        """Changes of a key or range, from `start_revision` on (0: from now on), until canceled.

        Returns once the server has accepted the watch, so whatever happens from then on is seen.
        Ends with WatchCompacted when history it needs is gone. `progress_notify` delivers
        responses without events now and then; `fragment` lets the server send large revisions in
        pieces (put together again here); `require_leader` leaves members that lost their leader,
        and raises NoLeaderError when no endpoint has one.
        """
        create = watch_request(
            key,
            prefix=prefix,
            from_key=from_key,
            range_end=range_end,
            start_revision=start_revision,
            prev_kv=prev_kv,
            filters=filters,
            progress_notify=progress_notify,
            fragment=fragment,
        )
        return AsyncWatch(
            self,
            create,
            require_leader=require_leader,
            timeout=self._timeout_s if timeout is None else timeout,
        )

    def lease(
        self,
        ttl: int,
        *,
        lease_id: int = 0,
        keep_alive: bool = True,
        timeout: float | None = None,
    ) -> AsyncLease:
        """Grant a lease of `ttl` seconds and, unless told not to, keep it alive.

        Await the result, or enter it: `async with client.lease(10) as lease`.
        """
        return AsyncLease(self, ttl=ttl, lease_id=lease_id, keep_alive=keep_alive, timeout=timeout)

    def keep_alive(self, lease_id: int, *, timeout: float | None = None) -> AsyncLease:
        """Keep a lease alive that exists already. Raises LeaseNotFoundError when awaited."""
        return AsyncLease(self, lease_id=lease_id, existing=True, timeout=timeout)

    async def sync_endpoints(self, *, timeout: float | None = None) -> tuple[str, ...]:
        """Take the endpoints from the cluster's member list from now on; returns them."""
        return self._take_endpoints(await self.member_list(timeout=timeout))

    async def health(self, endpoint: str = "", *, timeout: float | None = None) -> EndpointHealth:
        """Whether an endpoint (default: the one in use) serves linearizable reads, unalarmed."""
        endpoint = endpoint or self._rotation.current.text
        return await self._run(recipes.health(endpoint, timeout, self._clock))

    async def move_leader(self, target_id: int, *, timeout: float | None = None) -> int:
        """Find the leader and have it hand over to `target_id`; returns the id it had."""
        return await self._run(recipes.move_leader(self.endpoints, target_id, timeout))

    async def alarm_disarm(
        self,
        *,
        type: AlarmType = AlarmType.NONE,
        member_id: int = 0,
        timeout: float | None = None,
    ) -> AlarmsResult:
        """Clear the alarms of one type and member (NONE and 0: all); returns what was cleared."""
        return await self._run(recipes.disarm(type, member_id, timeout))

    async def snapshot(
        self,
        target: Target,
        *,
        endpoint: str = "",
        progress: Callable[[int, int], None] | None = None,
        timeout: float | None = None,
    ) -> SnapshotInfo:
        """Save a member's database to `target`, verified; a path gets its file only when whole.

        `progress(received_bytes, remaining_bytes)` is called after each piece. There is no
        deadline unless `timeout` is given. Raises SnapshotCorruptError.
        """
        with SnapshotTarget(target) as out:
            tries = 1 if endpoint else len(self._rotation.all)
            while True:
                chosen = self._pin(endpoint) if endpoint else self._rotation.current
                check = SnapshotCheck()
                tries -= 1
                try:
                    stream = self._snapshot_stream(chosen)(
                        pb.SnapshotRequest(), timeout=timeout, metadata=self._metadata
                    )
                    async for message in stream:
                        blob, remaining_bytes = check.feed(message)
                        await asyncio.to_thread(out.write, blob)
                        if progress is not None:
                            progress(check.received_bytes, remaining_bytes)
                    return check.finish()
                except grpc.RpcError as failure:
                    error = self._failure(failure, chosen, Effect.READ)
                    if tries <= 0 or check.received_bytes:
                        raise error from None

    # Inside.

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A background task that `close` waits for (whoever made it cancels it)."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _make_channel(self, endpoint: Endpoint) -> Any:
        if endpoint.secure:
            return grpc.aio.secure_channel(endpoint.target, self._credentials, self._options)
        return grpc.aio.insecure_channel(endpoint.target, self._options)

    async def _invoke(self, call: Unary[T], latest: float) -> T:
        clock = self._clock
        attempts = self._attempts(call, clock(), latest)
        renewed = False
        while True:
            endpoint = self._endpoint_for(call)
            try:
                answer = await self._unary(endpoint, call.method)(
                    call.request,
                    timeout=attempts.timeout_s(clock()),
                    metadata=self._metadata,
                )
            except grpc.RpcError as failure:
                error = self._failure(failure, endpoint, call.effect)
            except grpc.aio.UsageError:  # what grpc.aio raises on a channel closed meanwhile
                raise ClientClosedError("the client is closed") from None
            except asyncio.CancelledError:
                # Closing a channel cancels its calls; only a cancellation of ours is passed on.
                task = asyncio.current_task()
                if not self._closed or task is None or task.cancelling():
                    raise
                raise ClientClosedError(
                    "the client was closed", outcome=unknown_if_write(call.effect)
                ) from None
            else:
                return call.convert(answer)
            if self._closed:
                raise ClientClosedError("the client was closed", outcome=error.outcome)
            if not renewed and self._wants_token(error):
                renewed = True
                await self._authenticate()
                continue
            pause = attempts.failed(error, clock())
            if pause is None:
                raise error
            await asyncio.sleep(pause)

    async def _authenticate(self) -> None:
        self._set_token("")
        self._set_token(await self.call(operations.authenticate(self._user, self._password)))

    async def _run(self, program: Program[T]) -> T:
        return await run_program(self, program)
