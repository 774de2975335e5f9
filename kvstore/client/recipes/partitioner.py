"""A partitioner: a set of items divided among the living members, each item to one at a time.

Everyone computes the same division from the list of members; an item is a member's only once its
owner's key stands in the store. So when members come or go, items change hands in two phases:
who is to give some up is told (state RELEASE), stops working on them, and releases; who is to
get them waits until then. Items that stay are held all the while. No item that `acquire` has
returned is let go before its member says so: only the member knows when work on it has stopped.

The list of members is fed from outside (`see`), by a watch of the client's.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from enum import Enum

from kvstore.client import operations
from kvstore.client.call import Effect
from kvstore.client.errors import KvError, LeaseLostError, LockTimeoutError
from kvstore.client.keys import Key, to_bytes
from kvstore.client.recipes.holder import Clock, HolderRecipe
from kvstore.client.recipes.line import (
    Claim,
    Contender,
    contenders,
    line_prefix,
    queue_key,
    strange_answer,
    take_place,
)
from kvstore.client.recipes.shares import Division, divide
from kvstore.client.recipes.steps import (
    Bell,
    Bounded,
    HeldLease,
    Idle,
    LeaseStop,
    Limits,
    Program,
    WaitDeleted,
    deadline_of,
    within,
)
from kvstore.client.txn import Compare, CreateRevision, Delete, Get, Put, Txn
from kvstore.client.values import KeyValue, RangeResult, TxnResult

__all__ = ("PartitionState", "PartitionerRecipe")

_BATCH = 50
"""Items in one transaction; a server's usual settings allow 128 operations."""


class PartitionState(Enum):
    """What a member of a partitioner has to do next."""

    ALLOCATING = "allocating"
    """Call `acquire` and wait for the share."""
    ACQUIRED = "acquired"
    """Work on the items."""
    RELEASE = "release"
    """Members came or went: stop working, call `release`, then `acquire`."""
    FAILED = "failed"
    """The lease is lost and all items with it: stop working; join again."""


class _MembersChanged(KvError):  # noqa: N818 - no mistake, and never seen outside
    """Waiting ended, since the division is another one now."""


class PartitionerRecipe(HolderRecipe):
    """Keys: NAME/members/LEASE and NAME/owners/ITEM with the identifier as value."""

    kind = "partitioner"

    def __init__(
        self,
        name: Key,
        clock: Clock,
        *,
        items: Iterable[Key],
        ttl: int,
        lease: HeldLease | None = None,
        identifier: Key = b"",
        division: Division = divide,
    ) -> None:
        super().__init__(name, clock, ttl=ttl, lease=lease, identifier=identifier)
        self.items = frozenset(map(to_bytes, items))
        self.members_name = line_prefix(self.name) + b"members"
        self._owners = line_prefix(self.name) + b"owners/"
        self._divide = division
        self._tokens: dict[bytes, int] = {}
        self._returned: frozenset[bytes] = frozenset()
        """Items that the caller may be working on."""
        self._going: dict[bytes, int] = {}
        """Items that are not ours any more, but may still look so to others."""
        self._target: frozenset[bytes] = frozenset()
        self._known: frozenset[bytes] = frozenset()
        """The members' keys that the division follows."""
        self._revision = 0
        """Of the newest list of members that was seen."""
        self._acquired = False
        self._seeing = threading.Lock()
        self._changed = Bell(lambda: _MembersChanged("the members have changed"))

    # What is known without asking.

    @property
    def state(self) -> PartitionState:
        """What to do next."""
        if self._claim is None or self.lost:
            return PartitionState.FAILED
        if not self._acquired:
            return PartitionState.ALLOCATING
        if self._target != self._tokens.keys():
            return PartitionState.RELEASE
        return PartitionState.ACQUIRED

    @property
    def owned(self) -> frozenset[bytes]:
        """The items that are ours; none once the lease is lost."""
        return frozenset() if self.lost else frozenset(self._tokens)

    @property
    def leaving(self) -> frozenset[bytes]:
        """Those of them that another member is waiting for."""
        return self.owned - self._target

    def item_token(self, item: Key) -> int:
        """The fencing token of an item that is ours: larger for every later owner."""
        token = self._tokens.get(to_bytes(item))
        if token is None:
            raise KvError(f"{self._what}: item {item!r} is not ours")
        return token

    def item_guard(self, item: Key) -> list[Compare]:
        """Conditions for transactions: the item is still ours."""
        return [CreateRevision(self._owners + to_bytes(item)) == self.item_token(item)]

    def see(self, members: Collection[bytes], revision: int) -> None:
        """Take the list of members' keys as it was at `revision`; older ones are ignored."""
        with self._seeing:
            if revision <= self._revision or self._claim is None:
                return
            self._revision = revision
            known = frozenset(members)
            if known != self._known:
                self._known, self._target = known, self._share(known)
        if self._target != self._tokens.keys():
            self._changed.ring()

    def _share(self, members: Collection[bytes]) -> frozenset[bytes]:
        return self._divide(self.items, members).get(self.claim.key, frozenset())

    # Programs.

    def members(self) -> Program[tuple[Contender, ...]]:
        """Everyone among whom the items are divided."""
        return contenders(line_prefix(self.members_name))

    def join(self, timeout: float | None = None) -> Program[None]:
        """Become a member; `acquire` then gets a share."""
        self._tokens, self._going = {}, {}
        self._target = self._returned = self._known = frozenset()
        self._acquired = False
        yield from self.enter(self._take, timeout)

    def acquire(self, timeout: float | None = None) -> Program[frozenset[bytes]]:
        """Wait until all items of our share are ours; returns them. Raises LockTimeoutError.

        If items that were returned before have to go, it does not wait: it returns what is ours,
        and the state is RELEASE. What was acquired when time is up stays ours; call again.
        """
        self.check()
        limits = Limits(
            deadline_of(self._clock(), timeout), (LeaseStop(self.lease), self._canceled)
        )
        try:
            yield from within(self._acquire(), limits)
        except LockTimeoutError as error:
            raise LockTimeoutError(
                f"{self._what}: the share was not complete within {timeout:g} s: {error.message}",
                outcome=error.outcome,
            ) from error
        self._acquired = True
        self._returned = frozenset(self._tokens)
        return self._returned

    def release(self, items: Iterable[Key] | None = None) -> Program[None]:
        """Work has stopped: let go of what others wait for; `acquire` comes next.

        `items`: work has stopped on these only (of `leaving`), and they are what is let go.
        """
        self.check()
        if items is None:
            self._returned, going = frozenset(), self.leaving
        else:
            going = frozenset(map(to_bytes, items)) & self._tokens.keys()
            self._returned -= going
        self._acquired = False
        yield from self._let_go(going)

    def wait_change(self, timeout: float | None = None) -> Program[bool]:
        """Wait until the state is not ACQUIRED; False when `timeout` seconds passed before."""
        self._changed.reset()
        if self.state is not PartitionState.ACQUIRED:
            return True
        limits = Limits(deadline_of(self._clock(), timeout), (self._changed, LeaseStop(self.lease)))
        try:
            yield Bounded(Idle(), limits)
        except LockTimeoutError:
            return False
        except (_MembersChanged, LeaseLostError):
            pass
        return True

    def part(self) -> Program[None]:
        """Give everything up and be a member no longer."""
        if self._claim is not None and self._given is not None:
            yield from self._let_go(frozenset(self._tokens))
        self._tokens, self._going = {}, {}
        self._acquired = False
        yield from self.leave()

    def _take(self, lease_id: int) -> Program[Claim]:
        key = queue_key(self.members_name, lease_id)
        return (yield from take_place(key, key, lease_id, self.identifier))

    def _acquire(self) -> Program[None]:
        while True:
            self._changed.reset()
            yield from self._look()
            target = self._target
            yield from self._let_go(self._tokens.keys() - target - self._returned)
            if self._returned - target:
                return  # waiting for others who may wait for these would never end
            try:
                yield from within(self._claim_items(target), Limits(stops=(self._changed,)))
            except _MembersChanged:
                continue
            if target == self._target:
                return

    def _look(self) -> Program[None]:
        """Read the list of members; the division follows it."""
        found: RangeResult = yield operations.range(
            line_prefix(self.members_name), prefix=True, keys_only=True
        )
        keys = [kv.key for kv in found]
        if self.claim.key not in keys:
            raise LeaseLostError(f"{self._what}: lease {self.lease.id:x} is no member any more")
        self.see(keys, found.header.revision)

    def _claim_items(self, target: frozenset[bytes]) -> Program[None]:
        """Make every item of `target` ours, waiting for owners who have not let go yet."""
        while missing := sorted(target - self._tokens.keys())[:_BATCH]:
            owner, revision = yield from self._claim_batch(missing)
            if owner is None:
                continue
            try:
                yield WaitDeleted(owner.key, revision + 1)
            except LockTimeoutError as error:
                raise LockTimeoutError(
                    f"{owner.key.decode(errors='backslashreplace')} is still another member's "
                    f"(lease {owner.lease:x})",
                    outcome=error.outcome,
                ) from error

    def _claim_batch(self, items: Collection[bytes]) -> Program[tuple[KeyValue | None, int]]:
        """Take those that are free; somebody who owns one of the others, and when."""
        place = self.claim
        takes = []
        for item in items:
            key = self._owners + item
            put = Put(key, self.identifier, lease=place.lease_id)
            takes.append(Txn().when(CreateRevision(key) == 0).then(put).otherwise(Get(key)))
        txn = Txn().when(CreateRevision(place.key) == place.token).then(*takes)
        # Twice does no harm: the second time finds the lease's own keys.
        answer: TxnResult = yield txn.build()._replace(effect=Effect.REPEATABLE)
        revision = answer.header.revision
        if not answer.succeeded:
            raise LeaseLostError(f"{self._what}: lease {place.lease_id:x} is no member any more")
        if len(answer.responses) != len(items):
            raise strange_answer()
        tokens, taken = dict(self._tokens), None
        for item, result in zip(items, answer.responses, strict=True):
            match result:
                case TxnResult(succeeded=True):
                    tokens[item] = revision
                case TxnResult(responses=(RangeResult(kvs=(owner,)),)):
                    if owner.lease == place.lease_id:
                        tokens[item] = owner.create_revision
                    else:
                        taken = owner
                case _:
                    raise strange_answer()
        self._tokens = tokens
        return taken, revision

    def _let_go(self, items: Iterable[bytes]) -> Program[None]:
        """Delete the owner's keys of these items, and of those where that failed before."""
        # First here, then there: an item must not look ours when it may be another's.
        tokens = self._tokens
        self._going |= {item: tokens[item] for item in items}
        self._tokens = {item: tokens[item] for item in tokens.keys() - self._going.keys()}
        while batch := sorted(self._going)[:_BATCH]:
            deletes = []
            for item in batch:
                key = self._owners + item
                ours = CreateRevision(key) == self._going[item]
                deletes.append(Txn().when(ours).then(Delete(key)))
            yield Txn().then(*deletes).build()._replace(effect=Effect.REPEATABLE)
            for item in batch:
                del self._going[item]

    def abandon(self, lease_id: int) -> Program[None]:
        call = operations.delete(queue_key(self.members_name, lease_id))
        yield call._replace(effect=Effect.REPEATABLE)
