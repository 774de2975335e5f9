"""Registrations for threads: one thread per client sends the heartbeats of all of them."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kvstore.client.errors import ClientClosedError, InvalidRequestError, KvError
from kvstore.client.registry import operations
from kvstore.client.registry.answers import DeregisterResult, RegisterResult
from kvstore.client.registry.limits import LEAVE_TIMEOUT_S, LINGER_S, REGISTER_TIMEOUT_S
from kvstore.client.registry.registration import (
    RegistrationBase,
    RegistrationState,
    Schedule,
    Work,
)
from kvstore.client.registry.sigterm import Sigterm
from kvstore.client.registry.values import Instance, Status
from kvstore.errors import Code

if TYPE_CHECKING:
    from kvstore.client.blocking.client import Client

__all__ = ("Heart", "Registration")

logger = logging.getLogger("kvstore.client")


class Registration(RegistrationBase):
    """An instance that is kept registered until `deregister`, `close`, or the client's `close`.

    As a context manager it is deregistered at the end.
    """

    def __init__(self, client: Client, wanted: Instance, drain_s: float) -> None:
        super().__init__(wanted, drain_s, client._random)
        self._client = client
        # Held over each call about this instance, so that none overtakes another.
        self._calls = threading.Lock()

    def set_status(
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
        with self._calls:
            try:
                self._told = self._client.call(call).instance
            except KvError:
                self._client.registry._heart.lose(self)
                raise
        return self._told

    def deregister(
        self, *, wait: float | None = None, reason: str = "", timeout: float | None = None
    ) -> DeregisterResult:
        """Remove the instance, first of all that a stopping program does; no more heartbeats.

        With `wait` this returns once all who watch have acknowledged it, or after so many seconds;
        see `acknowledged` of the result. If it fails, the instance expires after TTL and grace.
        """
        self.release()
        name = self._wanted
        with nullcontext() if sys.is_finalizing() else self._calls:
            return self._client.call(
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
        if sys.is_finalizing():
            return  # nobody sends any more; the thread is dead, perhaps with a lock in its hands
        self._end()
        self._client.registry._heart.drop(self)

    def close(self) -> None:
        """Deregister without waiting, and without raising: what fails is logged."""
        if self._state is RegistrationState.ENDED:
            return
        try:
            self.deregister()
        except KvError as error:
            self._last_error = error
            logger.warning("%s could not be deregistered: %s", self._wanted.name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _register(self, timeout: float | None) -> None:
        """Register now; raises what the server says."""
        with self._calls:
            if self._state is RegistrationState.ENDED:
                return
            sent, changes = self._client._clock(), self._changes
            call = operations.register_instance(self._wanted, timeout=timeout)
            result: RegisterResult = self._client.call(call)
            self._registered(result, sent, changes)

    def _leave(self) -> None:
        """Deregister; return soon after everyone knows it, or when the drain time is over."""
        clock = self._client._clock
        begun = clock()
        try:
            done = self.deregister(
                wait=self._drain_s, reason="SIGTERM", timeout=self._drain_s + LEAVE_TIMEOUT_S
            )
        except KvError as error:
            self._last_error = error
            logger.warning("%s could not be deregistered: %s", self._wanted.name, error)
            known = False
        else:
            known = done.acknowledged is not None and done.acknowledged.everyone
        left = self._drain_s - (clock() - begun)
        self._client._closing.wait(max(min(left, LINGER_S) if known else left, 0.0))


class Heart:
    """The heartbeats of a client; its thread runs while there is an instance to keep.

    Registrations in the background go one by one, with a look at the heartbeats in between.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._schedule: Schedule[Registration] = Schedule()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._sigterm = Sigterm(self._begin_leaving)
        self._leavers: set[Registration] = set()

    def keep(
        self,
        registration: Registration,
        *,
        required: bool,
        handle_sigterm: bool,
        timeout: float | None,
    ) -> None:
        """Register, then keep alive. Raises what the registration failed with, unless it is not
        `required` now and may succeed later."""
        if handle_sigterm:
            self._sigterm.install()
            self._leavers.add(registration)
        try:
            registration._register(timeout)
        except KvError as error:
            if required or isinstance(error, (InvalidRequestError, ClientClosedError)):
                registration._end()
                self._forget_leaver(registration)
                raise
            registration._failed(error, self._client._clock())
        with self._changed:
            self._schedule.add(registration)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="kvstore-heartbeat", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def lose(self, registration: Registration) -> None:
        """Register it again now, in the background."""
        with self._changed:
            registration._lose(self._client._clock())
            self._changed.notify_all()

    def drop(self, registration: Registration) -> None:
        """Keep it no longer."""
        with self._changed:
            self._schedule.drop(registration)
            self._changed.notify_all()
        self._forget_leaver(registration)

    def close(self) -> None:
        """No more heartbeats; the instances expire, unless they were deregistered before."""
        with self._changed:
            self._closed = True
            kept = list(self._schedule)
            thread = self._thread
            self._changed.notify_all()
        for registration in kept:
            registration._end()
        self._leavers.clear()
        self._sigterm.remove()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _forget_leaver(self, registration: Registration) -> None:
        self._leavers.discard(registration)
        if not self._leavers:
            self._sigterm.remove()

    def _run(self) -> None:
        while True:
            with self._changed:
                work = self._next()
                if work is None:
                    self._thread = None
                    return
            if work.heartbeats:
                self._beat(work.heartbeats, work.timeout_s)
            for registration in work.registrations:
                with self._told(registration):
                    registration._register(REGISTER_TIMEOUT_S)

    def _next(self) -> Work[Registration] | None:
        """Wait for work; None = there is nothing to keep."""
        while not self._closed and len(self._schedule):
            now = self._client._clock()
            work = self._schedule.due(now, 1)
            if work.heartbeats or work.registrations:
                return work
            wake = self._schedule.next_wake()
            self._changed.wait(None if wake is None else max(wake - now, 0.0))
        return None

    def _beat(self, registrations: Sequence[Registration], timeout_s: float) -> None:
        sent = self._client._clock()
        with self._told(*registrations):
            leases = [each.instance.lease for each in registrations]
            answer = self._client.call(operations.heartbeat(leases, timeout=timeout_s))
            for registration, ttl_s in zip(registrations, answer.ttl_s, strict=True):
                registration._beat(ttl_s, sent)

    @contextmanager
    def _told(self, *registrations: Registration) -> Iterator[None]:
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
        # Not here: the main thread may hold a lock that deregistering needs.
        threading.Thread(target=self._all_leave, name="kvstore-leave", daemon=True).start()

    def _all_leave(self) -> None:
        leavers = [
            threading.Thread(target=each._leave, name="kvstore-leave", daemon=True)
            for each in list(self._leavers)
        ]
        for thread in leavers:
            thread.start()
        for thread in leavers:
            thread.join()
        self._sigterm.left()
