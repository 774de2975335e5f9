"""One registered instance and how its heartbeats go. Pure: time and chance are passed in.

What can fail in the background is never raised there: it is seen in `state` and `last_error`, and
told in the log once per change.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from math import ceil, inf
from typing import Generic, NamedTuple, TypeVar

from kvstore.client.endpoints import Endpoint
from kvstore.client.errors import KvError
from kvstore.client.registry.address import outgoing_address
from kvstore.client.registry.answers import RegisterResult
from kvstore.client.registry.limits import (
    HEARTBEAT_COMPANY,
    HEARTBEAT_FRACTION,
    HEARTBEAT_JITTER,
    HEARTBEAT_RETRY_S,
    HEARTBEAT_TIMEOUT_MAX_S,
    HEARTBEAT_TIMEOUT_MIN_S,
    HEARTBEATS_TOGETHER,
    REGISTER_RETRY_MAX_S,
)
from kvstore.client.registry.values import Check, Instance, Status

__all__ = ("RegistrationBase", "RegistrationState", "Schedule", "Work", "wanted_instance")

logger = logging.getLogger("kvstore.client")


class RegistrationState(StrEnum):
    """How a registration is doing."""

    REGISTERING = "registering"
    """Not there yet, or lost: it is being registered (again)."""
    REGISTERED = "registered"
    LATE = "late"
    """The last heartbeat failed; after the TTL others see the instance as DOWN."""
    ENDED = "ended"
    """Deregistered or released, by ourselves."""


def wanted_instance(
    service: str,
    *,
    endpoint: Endpoint,
    port: int | None,
    ports: Mapping[str, int] | None,
    address: str | None,
    id: str,
    namespace: str,
    ttl: int,
    grace: int,
    drain: float,
    tags: Iterable[str],
    zone: str,
    region: str,
    version: str,
    weight: int,
    metadata: Mapping[str, str] | None,
    status: Status,
    checks: Iterable[Check],
) -> Instance:
    """The instance that `register` is asked for. Raises ValueError; the server checks the rest."""
    if (port is None) == (not ports):
        raise ValueError("give port=, or ports= by name")
    if ttl < 1:
        raise ValueError(f"ttl={ttl}: a heartbeat's time is 1 s at least")
    if drain < 0:
        raise ValueError(f"drain={drain}: a time cannot be negative")
    return Instance(
        service=service,
        namespace=namespace,
        # Chosen here: then a registration whose answer is lost can be repeated.
        id=id or f"{service}-{uuid.uuid4().hex[:16]}",
        address=outgoing_address(endpoint.target) if address is None else address,
        ports=dict(ports) if ports else {"main": port or 0},
        zone=zone,
        region=region,
        version=version,
        weight=weight,
        tags=tuple(tags),
        metadata=dict(metadata or {}),
        status=status,
        reported=status,
        ttl_s=ttl,
        grace_s=grace,
        drain_s=ceil(drain),
        checks=tuple(checks),
    )


class RegistrationBase:
    """What a registration of either client knows; `Schedule` sees to its heartbeats."""

    def __init__(self, wanted: Instance, drain_s: float, random: Callable[[], float]) -> None:
        self._wanted = wanted
        self._told = wanted
        self._drain_s = drain_s
        self._random = random
        # The heartbeats' thread and the user's change it.
        self._transition = threading.RLock()
        self._state = RegistrationState.REGISTERING
        self._last_error: KvError | None = None
        self._due = 0.0
        self._failures = 0
        self._changes = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._wanted.name} {self._state}>"

    @property
    def state(self) -> RegistrationState:
        return self._state

    @property
    def last_error(self) -> KvError | None:
        """What went wrong last; None since it went well again."""
        return self._last_error

    @property
    def instance(self) -> Instance:
        """The instance as the registry told it last."""
        return self._told

    @property
    def id(self) -> str:
        """The instance's id."""
        return self._wanted.id

    @property
    def drain_s(self) -> float:
        """How long to wait, at a SIGTERM, for those who do not know yet."""
        return self._drain_s

    # What happens to it.

    def _reports(self, status: Status) -> None:
        """From now on the instance says this of itself, also when it is registered again."""
        with self._transition:
            self._wanted = replace(self._wanted, reported=status, status=status)
            self._changes += 1

    def _registered(self, result: RegisterResult, sent: float, changes: int) -> None:
        """Registered by a request that was sent at `sent`, after so many `changes` of status."""
        with self._transition:
            self._told = result.instance
            if self._state is RegistrationState.ENDED:
                return
            self._well("registered")
            # A status that was changed meanwhile is still to be told.
            self._due = self._next_beat(sent) if changes == self._changes else sent
            if changes != self._changes:
                self._state = RegistrationState.REGISTERING

    def _beat(self, ttl_s: int, sent: float) -> None:
        """A heartbeat sent at `sent` was answered; TTL 0: the registry does not know it."""
        with self._transition:
            if self._state is RegistrationState.ENDED:
                return
            if ttl_s <= 0:
                logger.warning("%s is not registered any more: again, then", self._wanted.name)
                self._lose(sent)
            elif self._state is not RegistrationState.REGISTERING:
                self._well("heard again")
                self._due = self._next_beat(sent)

    def _lose(self, now: float) -> None:
        """It is to be registered again, now."""
        with self._transition:
            if self._state is not RegistrationState.ENDED:
                self._state = RegistrationState.REGISTERING
                self._failures = 0
                self._due = now

    def _failed(self, error: KvError, now: float) -> None:
        """A heartbeat or a registration in the background failed."""
        with self._transition:
            if self._state is RegistrationState.ENDED:
                return
            if self._last_error is None:
                logger.warning("the registry does not hear of %s: %s", self._wanted.name, error)
            self._last_error = error
            self._failures += 1
            if self._state is RegistrationState.REGISTERED:
                self._state = RegistrationState.LATE
            pause = HEARTBEAT_RETRY_S
            if self._state is RegistrationState.REGISTERING:
                pause = min(pause * 2.0 ** min(self._failures - 1, 8), REGISTER_RETRY_MAX_S)
            self._due = now + pause * (0.5 + self._random())

    def _end(self) -> None:
        """It is ours no longer."""
        with self._transition:
            self._state = RegistrationState.ENDED

    def _well(self, how: str) -> None:
        if self._last_error is not None or self._state is not RegistrationState.REGISTERED:
            logger.info("%s is %s", self._wanted.name, how)
        self._state = RegistrationState.REGISTERED
        self._last_error = None
        self._failures = 0

    @property
    def _interval_s(self) -> float:
        return (self._told.ttl_s or self._wanted.ttl_s) / HEARTBEAT_FRACTION

    def _next_beat(self, sent: float) -> float:
        return sent + self._interval_s * (1 + HEARTBEAT_JITTER * (2 * self._random() - 1))


R = TypeVar("R", bound=RegistrationBase)


class Work(NamedTuple, Generic[R]):
    """What is to be done now."""

    heartbeats: Sequence[R]
    """To be sent in one call."""
    registrations: Sequence[R]
    timeout_s: float
    """For the heartbeats."""


class Schedule(Generic[R]):
    """All registrations of one client, so that one call carries many heartbeats."""

    def __init__(self) -> None:
        self._registrations: set[R] = set()

    def __len__(self) -> int:
        return len(self._registrations)

    def __iter__(self) -> Iterator[R]:
        return iter(list(self._registrations))

    def add(self, registration: R) -> None:
        """Keep it alive from now on."""
        self._registrations.add(registration)

    def drop(self, registration: R) -> None:
        """Keep it alive no longer."""
        self._registrations.discard(registration)

    def due(self, now: float, registrations: int) -> Work[R]:
        """What is due at `now`, at most so many `registrations`; heartbeats that are due soon go
        along with those that are."""
        beats: list[R] = []
        soon: list[R] = []
        lost: list[R] = []
        for each in self._registrations:
            if each.state is RegistrationState.REGISTERING:
                if each._due <= now:
                    lost.append(each)
            elif each._due <= now:
                beats.append(each)
            elif each._due <= now + each._interval_s * HEARTBEAT_COMPANY:
                soon.append(each)
        if beats:
            beats = (beats + soon)[:HEARTBEATS_TOGETHER]
        shortest = min((each._interval_s for each in beats), default=inf)
        timeout_s = max(min(shortest, HEARTBEAT_TIMEOUT_MAX_S), HEARTBEAT_TIMEOUT_MIN_S)
        return Work(beats, lost[:registrations], timeout_s)

    def next_wake(self) -> float | None:
        """When something is due next; None: nothing is kept."""
        return min((each._due for each in self._registrations), default=None)
