"""Recipes' programs as actors on the real state machine: one step of one actor at a time.

No server, thread or clock: who goes next is chosen by the test, so a property test can try any
interleaving of any number of clients, and end leases in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvstore.client.call import Unary
from kvstore.client.errors import KvError, LeaseLostError, from_status
from kvstore.client.recipes.steps import (
    UNLIMITED,
    Bounded,
    Grant,
    Limits,
    Program,
    Revoke,
    WaitChange,
    WaitDeleted,
)
from kvstore.client.values import WatchFilter
from kvstore.errors import EtcdError
from kvstore.machine.command import CommandKind
from kvstore.machine.results import Change
from kvstore.pb import rpc_pb2 as pb
from tests.unit.api.local_node import LocalNode

__all__ = ("Actor", "FakeLease", "Store")


class FakeLease:
    """A lease of a client that learns of its end when the test says so."""

    def __init__(self, lease_id: int) -> None:
        self.id = lease_id
        self.lost = False

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Nobody is called: `Actor.runnable` looks."""

    def off_lost(self, callback: Callable[[], None]) -> None:
        """As above."""


class _History:
    """Takes the place of the hub: remembers every change."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def publish(self, changes: Sequence[Change]) -> None:
        self.changes.extend(changes)


class Store:
    """The state machine, and what recipes ask of it."""

    def __init__(self) -> None:
        self._node = LocalNode()
        self._history = _History()
        self._node.watches = self._history  # type: ignore[assignment]
        self._leases = 0

    def grant(self) -> FakeLease:
        self._leases += 1
        self._write(CommandKind.LEASE_GRANT, pb.LeaseGrantRequest(ID=self._leases, TTL=60))
        return FakeLease(self._leases)

    def revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; also one that has ended already."""
        try:
            self._write(CommandKind.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))
        except KvError as error:
            assert "lease not found" in error.message

    def call(self, call: Unary[Any]) -> Any:
        request = call.request
        kind = {
            "PutRequest": CommandKind.PUT,
            "DeleteRangeRequest": CommandKind.DELETE_RANGE,
            "TxnRequest": CommandKind.TXN,
        }.get(type(request).__name__)
        if isinstance(request, pb.RangeRequest):
            answer = _answer(lambda done: self._node.range(request, done))
        elif kind is CommandKind.TXN and call.effect.value == "read":
            answer = _answer(lambda done: self._node.read_txn(request, False, done))
        else:
            assert kind is not None, request
            answer = self._write(kind, request)
        header = self._node.header(answer.revision)
        return call.convert(call.method.response.FromString(header + answer.body))

    def happened(self, wait: WaitDeleted | WaitChange) -> bool:
        """Whether a watch would have ended the wait."""
        create = wait.request()
        key, end = create.key, create.range_end
        for change in self._history.changes:
            if change.revision < create.start_revision:
                continue
            if (change.kind == 1 and WatchFilter.NO_DELETE in create.filters) or (
                change.kind == 0 and WatchFilter.NO_PUT in create.filters
            ):
                continue
            if change.key == key or (end and key <= change.key < end):
                return True
        return False

    def _write(self, kind: CommandKind, request: Any) -> Any:
        return _answer(lambda done: self._node.write(kind, request.SerializeToString(), done))


def _answer(ask: Callable[[Any], None]) -> Any:
    answers: list[Any] = []
    ask(lambda answer, error: answers.append(error or answer))
    answer = answers[0]
    if isinstance(answer, EtcdError):
        raise from_status(int(answer.code), answer.message, write=True)
    return answer


class Actor:
    """One client that carries out one program after the other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._program: Program[Any] | None = None
        self._step: Any = None
        self._limits = UNLIMITED
        self.lease: FakeLease | None = None
        """The last one it was granted."""
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._program is not None

    @property
    def waits_for(self) -> WaitDeleted | WaitChange | None:
        """What it waits for, if that has not happened."""
        waiting = isinstance(self._step, WaitDeleted | WaitChange)
        return self._step if waiting and not self.runnable else None

    @property
    def runnable(self) -> bool:
        if not self.busy:
            return False
        if self._limits.reason() is not None:
            return True
        step = self._step
        return not isinstance(step, WaitDeleted | WaitChange) or self._store.happened(step)

    def begin(self, program: Program[Any]) -> None:
        assert not self.busy
        self._program, self.result, self.error = program, None, None
        self._advance(lambda: next(program))

    def go(self) -> None:
        """Do one step; it must be runnable."""
        program = self._program
        assert program is not None
        try:
            answer = self._do()
        except KvError as error:
            failed = error
            self._advance(lambda: program.throw(failed))
        else:
            self._advance(lambda: program.send(answer))

    def die(self) -> None:
        """Its lease ends; it learns of it at its next step."""
        assert self.lease is not None
        self._store.revoke(self.lease.id)
        self.lease.lost = True

    def _do(self) -> Any:
        why = self._limits.reason()
        if why is not None:
            raise why
        match self._step:
            case Unary():
                return self._store.call(self._step)
            case Grant():
                self.lease = self._store.grant()
                return self.lease
            case Revoke():
                return self._store.revoke(self._step.lease.id)
            case _:
                return None

    def _advance(self, resume: Callable[[], Any]) -> None:
        try:
            step = resume()
        except StopIteration as done:
            self._program, self._step, self.result = None, None, done.value
        except (KvError, LeaseLostError) as error:
            self._program, self._step, self.error = None, None, error
        else:
            self._limits = Limits()
            while isinstance(step, Bounded):
                self._limits = self._limits.joined(step.limits)
                step = step.step
            self._step = step
