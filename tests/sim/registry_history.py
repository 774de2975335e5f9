"""What clients of the service registry did and were told, as invariants are shown it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.linear.history import Outcome

__all__ = ("Call", "Past", "Reading", "Shown", "ToldEvent", "Watch", "WatchAnswer")


@dataclass(slots=True)
class Call:
    """One request about one instance (namespace/service/id)."""

    kind: str
    """register, beat, deregister, report, override, drain."""
    name: str
    invoked_ns: int
    told_ns: int | None = None
    """When it was answered, or the client gave up."""
    outcome: Outcome = Outcome.UNKNOWN
    revision: int = 0
    """Of the instance that was registered."""
    ttl_s: int = 0
    """The answer to a heartbeat; 0: it is not registered."""


class Shown(NamedTuple):
    """An instance in an answer."""

    revision: int
    """When it last changed; 0: not told."""
    status: str


@dataclass(slots=True)
class Reading:
    """One answer to a question for the instances of a service."""

    how: str
    """get or dns."""
    service: str
    healthy: bool
    """Only those that are routable were asked for."""
    invoked_ns: int
    revision: int
    """The store's revision that the answer is as of."""
    service_revision: int
    linearizable: bool
    shown: dict[str, Shown]


class ToldEvent(NamedTuple):
    """One change as a watcher or the history tells it."""

    revision: int
    name: str
    event: str
    code: str
    text: str
    shown: Shown
    left: bool


@dataclass(slots=True)
class WatchAnswer:
    """One response to a watch."""

    at_ns: int
    revision: int
    is_snapshot: bool
    is_progress: bool
    snapshot: dict[str, Shown]
    events: tuple[ToldEvent, ...]


@dataclass(slots=True)
class Watch:
    """One stream of a watching client; a resumed watch is another one."""

    client: int
    scope: str
    """A service, a namespace, or "*"."""
    healthy: bool
    after: int
    """The revision that it goes on after; 0: it begins anew."""
    state: dict[str, Shown]
    """What the client knows: before the first answer, what it knew when it went on."""
    member: str
    answers: list[WatchAnswer] = field(default_factory=list)


@dataclass(slots=True)
class Past:
    """What the history told of a service."""

    service: str
    first: int
    """Asked for from this revision on."""
    revision: int
    """The store's, when it answered."""
    oldest: int
    """Where the history begins."""
    events: tuple[ToldEvent, ...]
    whole: bool
    """False: it was cut at a number of events."""
