"""Who has heard of a change: acknowledgements, and waiting for them over all members.

Each member knows its own subscribers (`watching`). The member that serves a deregistration asks
every member, itself included, to wait until its own have acknowledged the change, and puts the
answers together. Counted are streams with a subscriber id to which the change was told. One that
leaves while it is waited for is no laggard. Who cannot acknowledge (streams without an id, etcd
watchers, DNS) is told by kind and number, and never counted as acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kvstore.errors import Code, EtcdError
from kvstore.registry.catalog import Catalog
from kvstore.registry.limits import ACK_SLICE_S, ACK_WAIT_MAX_S, ACK_WAITS_MAX
from kvstore.registry.names import InstanceName, ServiceName, instance_key
from kvstore.registry.watching import Scope, Subscriber, Watching

if TYPE_CHECKING:
    from kvstore.node.node import Node

__all__ = ("Acknowledged", "Laggard", "Subscribers")

_METHOD: Final = "registry_acks"
_WITHOUT_ID: Final = "watch without id"
_ETCD_WATCH: Final = "etcd watch"


class Laggard(NamedTuple):
    """A subscriber that has not acknowledged in time."""

    id: str
    member_id: int
    member_name: str
    acked_revision: int


class Acknowledged(NamedTuple):
    """What came of waiting."""

    acknowledged: int
    laggards: list[Laggard]
    silent_members: list[int]
    """They did not answer: what their subscribers know is not known."""
    cannot_acknowledge: dict[str, int]
    waited_ms: int

    @property
    def complete(self) -> bool:
        """Everybody who could has acknowledged."""
        return not self.laggards and not self.silent_members


class _Local(NamedTuple):
    """What one member answers."""

    acknowledged: int
    laggards: list[list[Any]]
    """[id, acknowledged revision] of each."""
    cannot_acknowledge: dict[str, int]


class _Waiting:
    """One change, and whom it waits for at this member."""

    def __init__(self, outstanding: set[Subscriber], revision: int) -> None:
        self.outstanding = outstanding
        self.revision = revision
        self.over = asyncio.Event()

    def look_at(self, subscriber: Subscriber) -> None:
        """It has acknowledged something, or left."""
        if subscriber not in self.outstanding:
            return
        if subscriber.closed or subscriber.has_acked(self.revision):
            self.outstanding.discard(subscriber)
            if not self.outstanding:
                self.over.set()


class Subscribers:
    """One member's part in this."""

    def __init__(self, node: Node, catalog: Catalog, watching: Watching) -> None:
        self._node = node
        self._catalog = catalog
        self._watching = watching
        self._waiting: dict[_Waiting, None] = {}
        self.deaf: dict[str, Callable[[ServiceName], int]] = {}
        """Other front doors that tell of a service and get no acknowledgement, and how many
        hear of it there."""
        watching.on_left = self._look_at
        node.answer(_METHOD, self._answer)

    def ack(self, id_: str, scope: Scope, revision: int) -> bool:
        """A subscriber has applied everything up to a revision; False: it is not known here."""
        if revision > self._catalog.revision:
            raise EtcdError(
                Code.OUT_OF_RANGE,
                f"registry: revision {revision} is yet to come: the store is at "
                f"{self._catalog.revision}",
            )
        found = self._watching.subscribers_in(scope, id_) if id_ else []
        for subscriber in found:
            subscriber.ack(revision)
            self._look_at(subscriber)
        return bool(found)

    def _look_at(self, subscriber: Subscriber) -> None:
        for waiting in list(self._waiting):
            waiting.look_at(subscriber)

    async def wait(
        self, names: Sequence[InstanceName], revision: int, wait_s: float
    ) -> Acknowledged:
        """Waits until all have acknowledged a change of instances of one service."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        name = names[0]
        question = [*name.of, instance_key(name), revision, int(wait_s * 1000)]
        members = [self._node.member_id, *self._node.remote_members]
        answers = await asyncio.gather(
            *(self._ask(member, question, wait_s + ACK_SLICE_S) for member in members)
        )
        acknowledged = 0
        laggards: list[Laggard] = []
        silent: list[int] = []
        deaf: dict[str, int] = {}
        for member_id, answer in zip(members, answers, strict=True):
            if answer is None:
                silent.append(member_id)
                continue
            acknowledged += answer.acknowledged
            member = self._node.machine.members.get(member_id)
            for id_, acked in answer.laggards:
                laggards.append(Laggard(id_, member_id, member.name if member else "", acked))
            for kind, count in answer.cannot_acknowledge.items():
                deaf[kind] = deaf.get(kind, 0) + count
        waited_ms = int((loop.time() - began) * 1000)
        return Acknowledged(acknowledged, sorted(laggards), silent, deaf, waited_ms)

    async def _ask(self, member: int, question: list[Any], timeout_s: float) -> _Local | None:
        """What a member says; None if it does not."""
        try:
            if member == self._node.member_id:
                return _local_of(await self._answer(question))
            return _local_of(await self._node.calls.ask(member, _METHOD, question, timeout_s))
        except EtcdError:
            return None

    async def _answer(self, question: Any) -> Any:
        """Waits for this member's own subscribers."""
        match question:
            case [str(namespace), str(service), bytes(key), int(revision), int(timeout_ms)]:
                pass
            case _:
                raise EtcdError(Code.INVALID_ARGUMENT, "unreadable question of a member")
        if len(self._waiting) >= ACK_WAITS_MAX:
            raise EtcdError(Code.RESOURCE_EXHAUSTED, "registry: too many changes wait already")
        name = ServiceName(namespace, service)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(timeout_ms / 1000, ACK_WAIT_MAX_S)
        try:
            async with asyncio.timeout_at(deadline):
                await self._catalog.wait_ready()
                await self._watching.reached(revision)
        except TimeoutError:
            raise EtcdError(Code.DEADLINE_EXCEEDED, "registry: this member is behind") from None
        subscribers = [
            subscriber for feed in self._watching.feeds_of(name) for subscriber in feed.subscribers
        ]
        counted = [each for each in subscribers if each.id]
        waiting = _Waiting({each for each in counted if not each.has_acked(revision)}, revision)
        if waiting.outstanding:
            self._waiting[waiting] = None
            try:
                async with asyncio.timeout_at(deadline):
                    await waiting.over.wait()
            except TimeoutError:
                pass
            finally:
                del self._waiting[waiting]
        acked = sum(1 for each in counted if not each.closed and each not in waiting.outstanding)
        laggards = sorted([each.id, each.acked] for each in waiting.outstanding)
        return [acked, laggards, self._deaf(name, key, len(subscribers) - len(counted))]

    def _deaf(self, service: ServiceName, key: bytes, without_id: int) -> dict[str, int]:
        """Who hears of a change and cannot acknowledge it."""
        counts = {
            _WITHOUT_ID: without_id,
            _ETCD_WATCH: self._node.watches.watchers_of(key),
            **{kind: count(service) for kind, count in self.deaf.items()},
        }
        return {kind: count for kind, count in counts.items() if count}


def _local_of(answer: Any) -> _Local:
    """Reads what a member answered."""
    match answer:
        case [int(acknowledged), [*laggards], dict(deaf)] if all(
            isinstance(each, list) and [type(part) for part in each] == [str, int]
            for each in laggards
        ):
            return _Local(acknowledged, laggards, deaf)
    raise EtcdError(Code.INTERNAL, "unreadable answer of a member")
