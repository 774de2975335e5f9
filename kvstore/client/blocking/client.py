"""The blocking client: every operation as a method, plus watches, leases, locks, elections."""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from kvstore.client import operations, recipes
from kvstore.client.base import ClientBase, unary_on
from kvstore.client.blocking.lease import Keeper, Lease
from kvstore.client.blocking.recipes import Recipes
from kvstore.client.blocking.running import run_program
from kvstore.client.blocking.watch import Watch
from kvstore.client.call import Effect, Method, Unary
from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import (
    ClientClosedError,
    LeaseNotFoundError,
)
from kvstore.client.keys import Key, span
from kvstore.client.limits import SCAN_PAGE
from kvstore.client.methods import adopt
from kvstore.client.recipes.line import strange_answer
from kvstore.client.recipes.steps import Bell, Program
from kvstore.client.registry.blocking import Registry
from kvstore.client.requests import watch_request
from kvstore.client.snapshots import SnapshotCheck, SnapshotTarget, Target
from kvstore.client.streams import Stream
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

__all__ = ("BoundTxn", "Client")

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(build: Callable[P, Unary[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(build(*args, **kwargs))

    adopt(method, build)
    return method


_open: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _prepare_last_calls() -> None:
    for client in list(_open):
        client._prepare_last_calls()


class BoundTxn(Txn):
    """A transaction of a client; see `Txn`."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def commit(self, *, timeout: float | None = None) -> TxnResult:
        """Send it."""
        return self._client.call(self.build(timeout))


class Client(Recipes, ClientBase):
    """A client of an etcd v3 cluster; may be shared by threads.

    Close it when done (it is a context manager): its watches end, its leases are renewed no
    longer, its connections are closed, its threads are gone.
    """

    put = _blocking(operations.put)
    get = _blocking(operations.get)
    range = _blocking(operations.range)
    get_prefix = _blocking(operations.get_prefix)
    delete = _blocking(operations.delete)
    delete_prefix = _blocking(operations.delete_prefix)
    compact = _blocking(operations.compact)
    lease_grant = _blocking(operations.lease_grant)
    lease_revoke = _blocking(operations.lease_revoke)
    lease_time_to_live = _blocking(operations.lease_time_to_live)
    leases = _blocking(operations.leases)
    keep_alive_once = _blocking(operations.keep_alive_once)
    member_list = _blocking(operations.member_list)
    member_add = _blocking(operations.member_add)
    member_remove = _blocking(operations.member_remove)
    member_update = _blocking(operations.member_update)
    member_promote = _blocking(operations.member_promote)
    status = _blocking(operations.status)
    alarms = _blocking(operations.alarms)
    alarm = _blocking(operations.alarm)
    defragment = _blocking(operations.defragment)
    hash_kv = _blocking(operations.hash_kv)

    registry: Registry
    """The service registry."""

    def _set_up(self) -> None:
        self.registry = Registry(self)
        self._keeper = Keeper(self)
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._last_channels: dict[str, Any] = {}
        self._closing = threading.Event()
        self._closing_bell = Bell(lambda: ClientClosedError("the client was closed"))
        _open.add(self)

    def close(self) -> None:
        """End everything this client has under way; closing twice is fine."""
        if sys.is_finalizing():
            return  # there is nothing left to end, and nobody to wait for
        _open.discard(self)
        with self._lock:
            self._closed = True
            channels = list(self._channels.values())
            watches = list(self._watches)
        if self._pid != os.getpid():
            return  # the channels belong to the parent process
        self._closing.set()
        self._closing_bell.ring()
        self.registry._close()
        for watch in watches:
            watch.cancel()
        self._keeper.close()
        for channel in channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(self, call: Unary[T]) -> T:
        """Make one call, with failover and repetition as its kind allows."""
        return self._invoke(call, math.inf)

    def scan(
        self, prefix: Key, *, revision: int = 0, page: int = SCAN_PAGE, keys_only: bool = False
    ) -> Iterator[KeyValue]:
        """Every key under `prefix`, of one revision, read `page` keys at a time."""
        start, end = span(prefix, prefix=True)
        while True:
            found = self.range(
                start, range_end=end, revision=revision, limit=page, keys_only=keys_only
            )
            yield from found.kvs
            if not found.more:
                return
            if not found.kvs:
                raise strange_answer()
            revision = revision or found.header.revision
            start = found.kvs[-1].key + b"\0"

    def txn(self) -> BoundTxn:
        """`client.txn().when(...).then(...).otherwise(...).commit()`; see `Txn`."""
        return BoundTxn(self)

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
    ) -> Watch:
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
        self._check_usable()
        watch = Watch(self, create, require_leader=require_leader)
        self._remember_watch(watch)
        try:
            watch._wait_established(self._timeout_s if timeout is None else timeout)
        except BaseException:
            watch.cancel()
            raise
        return watch

    def lease(
        self,
        ttl: int,
        *,
        lease_id: int = 0,
        keep_alive: bool = True,
        timeout: float | None = None,
    ) -> Lease:
        """Grant a lease of `ttl` seconds and, unless told not to, keep it alive."""
        sent = self._clock()
        granted = self.lease_grant(ttl, lease_id=lease_id, timeout=timeout)
        return self._adopt_lease(granted.id, granted.ttl_s, sent, keep_alive)

    def keep_alive(self, lease_id: int, *, timeout: float | None = None) -> Lease:
        """Keep a lease alive that exists already. Raises LeaseNotFoundError."""
        sent = self._clock()
        ttl_s = self.keep_alive_once(lease_id, timeout=timeout).ttl_s
        if ttl_s <= 0:
            raise LeaseNotFoundError(f"lease {lease_id:x} does not exist")
        return self._adopt_lease(lease_id, ttl_s, sent, True)

    def _adopt_lease(self, lease_id: int, ttl_s: int, sent: float, keep_alive: bool) -> Lease:
        lease = Lease(self, lease_id, ttl_s, sent)
        if keep_alive:
            self._keeper.add(lease, sent)
        return lease

    def sync_endpoints(self, *, timeout: float | None = None) -> tuple[str, ...]:
        """Take the endpoints from the cluster's member list from now on; returns them."""
        return self._take_endpoints(self.member_list(timeout=timeout))

    def health(self, endpoint: str = "", *, timeout: float | None = None) -> EndpointHealth:
        """Whether an endpoint (default: the one in use) serves linearizable reads, unalarmed."""
        endpoint = endpoint or self._rotation.current.text
        return self._run(recipes.health(endpoint, timeout, self._clock))

    def move_leader(self, target_id: int, *, timeout: float | None = None) -> int:
        """Find the leader and have it hand over to `target_id`; returns the id it had."""
        return self._run(recipes.move_leader(self.endpoints, target_id, timeout))

    def alarm_disarm(
        self,
        *,
        type: AlarmType = AlarmType.NONE,
        member_id: int = 0,
        timeout: float | None = None,
    ) -> AlarmsResult:
        """Clear the alarms of one type and member (NONE and 0: all); returns what was cleared."""
        return self._run(recipes.disarm(type, member_id, timeout))

    def snapshot(
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
                    stream = Stream(
                        self._snapshot_stream(chosen)(
                            pb.SnapshotRequest(), timeout=timeout, metadata=self._metadata
                        )
                    )
                    try:
                        for message in stream:
                            blob, remaining_bytes = check.feed(message)
                            out.write(blob)
                            if progress is not None:
                                progress(check.received_bytes, remaining_bytes)
                        return check.finish()
                    finally:
                        stream.cancel()
                except grpc.RpcError as failure:
                    error = self._failure(failure, chosen, Effect.READ)
                    if tries <= 0 or check.received_bytes:
                        raise error from None

    # Inside.

    def _make_channel(self, endpoint: Endpoint) -> Any:
        if endpoint.secure:
            return grpc.secure_channel(endpoint.target, self._credentials, self._options)
        return grpc.insecure_channel(endpoint.target, self._options)

    def _prepare_last_calls(self) -> None:
        if self._channels and self._pid == os.getpid():
            # Not when they are needed: grpcio imports as it goes, which is not possible then.
            self._last_channels = {
                each.text: self._make_channel(each) for each in self._rotation.all
            }

    def _last_unary(self, endpoint: Endpoint, method: Method) -> Any:
        """As `_unary`, for what finalizers call when the interpreter has killed all threads.

        Over other channels: a thread may have been killed while it held a lock of a channel.
        """
        self._check_usable()
        channel = self._last_channels.get(endpoint.text)
        if channel is None:
            raise ClientClosedError("the interpreter is ending")
        return unary_on(channel, method)

    def _invoke(self, call: Unary[T], latest: float) -> T:
        unary = self._last_unary if sys.is_finalizing() else self._unary
        clock = self._clock
        attempts = self._attempts(call, clock(), latest)
        renewed = False
        while True:
            endpoint = self._endpoint_for(call)
            try:
                answer = unary(endpoint, call.method)(
                    call.request,
                    timeout=attempts.timeout_s(clock()),
                    metadata=self._metadata,
                )
            except grpc.RpcError as failure:
                error = self._failure(failure, endpoint, call.effect)
            except ValueError:  # what grpcio raises on a channel that was closed meanwhile
                if not self._closed:
                    raise
                raise ClientClosedError("the client is closed") from None
            else:
                return call.convert(answer)
            if self._closed:
                raise ClientClosedError("the client was closed", outcome=error.outcome)
            if not renewed and self._wants_token(error):
                renewed = True
                self._authenticate()
                continue
            pause = attempts.failed(error, clock())
            if pause is None:
                raise error
            self._closing.wait(pause)

    def _authenticate(self) -> None:
        self._set_token("")
        self._set_token(self.call(operations.authenticate(self._user, self._password)))

    def _run(self, program: Program[T]) -> T:
        return run_program(self, program)

    def _remember_watch(self, watch: Watch) -> None:
        with self._lock:
            self._watches.add(watch)

    def _forget_watch(self, watch: Watch) -> None:
        with self._lock:
            self._watches.discard(watch)
