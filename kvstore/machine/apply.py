"""Applying committed entries: one batch, one store transaction, in turns of bounded length.

    begin ─► apply(), apply(), … True ─► commit()                                in place
                                     └─► commit_in_background() ─► committed()   a long batch

Rules: entries are applied in log order without gaps; the outcome of each depends on replicated
state and the entry alone; a refusal (EtcdError) is decided before the entry's first write and
counts as applied; any other exception means that this node cannot go on: the transaction is
dropped and the exception propagates.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import islice
from typing import Protocol

from google.protobuf.message import DecodeError

from kvstore.errors import EtcdError, detach
from kvstore.machine.alarms import refusal
from kvstore.machine.command import CommandError, decode
from kvstore.machine.draft import Draft, Lease
from kvstore.machine.handlers import HANDLERS, apply_conf_change
from kvstore.machine.jobs import Job
from kvstore.machine.results import Change, Result
from raft.types import Entry, EntryKind

__all__ = ("ApplyBatch", "Owner")


class Owner(Protocol):
    """What a batch needs of the machine that began it."""

    def seal(self, draft: Draft) -> bool:
        """Writes what says that the batch is applied; False if it changed nothing at all."""

    def adopt(self, draft: Draft) -> None:
        """The draft is committed: it is the state now."""

    def drop(self, draft: Draft) -> None:
        """The draft is given up, unless it was adopted. Idempotent."""


class ApplyBatch:
    """Entries on their way into the store; `Machine.begin` makes one.

    `step` it until it is True, or `apply` until that is True and then commit, in one of two ways.
    `results` grow while it is applied, and are only what will be; they are true, and `changes`,
    `granted` and `revoked` valid, once it is committed.
    """

    __slots__ = (
        "_draft",
        "_entries",
        "_job",
        "_owner",
        "_request_id",
        "_waiting",
        "changes",
        "granted",
        "results",
        "revoked",
    )

    def __init__(
        self,
        draft: Draft,
        entries: Sequence[Entry],
        waiting: Container[int] | None,
        owner: Owner,
    ) -> None:
        self._draft = draft
        self._entries = entries
        self._waiting = waiting
        self._owner = owner
        self._job: Job[bytes] | None = None
        self._request_id = 0
        self.results: list[Result] = []
        """One for each entry, in order."""
        self.changes: list[Change] = draft.changes
        """All events of the batch, ascending; none if it has `overflowed`."""
        self.revoked: list[int] = draft.revoked
        """Leases that ended; to be looked at before `granted`."""
        self.granted: dict[int, Lease] = draft.granted
        """Leases that began and still are: the leader gives them deadlines."""

    @property
    def overflowed(self) -> bool:
        """There were too many events to list: watchers have to read the history."""
        return self._draft.overflowed

    @property
    def certain(self) -> tuple[int, int] | None:
        """The entry that is being applied (or was last), and the revision that will follow it.

        None while that depends on what the entry still meets, or while an alarm is up.
        """
        draft = self._draft
        if draft.state.alarms:
            return None
        if self._job is None:
            return draft.applied[0], draft.revision
        if not draft.sub:
            return None
        index = self._entries[len(self.results)].index
        return index, draft.revision + 1 + draft.revisions_to_come

    def step(self, max_ops: int = 512) -> bool:
        """Applies about `max_ops` keys' worth; True when everything is applied and committed."""
        if not self.apply(max_ops):
            return False
        self.commit()
        return True

    def apply(self, max_ops: int) -> bool:
        """Applies about `max_ops` keys' worth; True when nothing is left but to commit.

        Any exception but EtcdError (which becomes a result) ends the batch without a trace.
        """
        try:
            return self._work(max_ops)
        except DecodeError as error:
            self.abandon()
            entry = self._entries[len(self.results)]
            raise CommandError(f"the request in entry {entry.index} is damaged: {error}") from error
        except BaseException:
            self.abandon()
            raise

    def commit(self) -> None:
        """Makes the batch the machine's state. If that fails, nothing has happened."""
        draft, owner = self._draft, self._owner
        try:
            if owner.seal(draft):
                draft.txn.commit()
        except BaseException:
            self.abandon()
            raise
        owner.adopt(draft)

    def commit_in_background(self, report: Callable[[BaseException | None], None]) -> None:
        """Commits a batch begun as `long` without waiting.

        `report` is called with None or the error, from any thread; whoever owns the machine
        then calls `committed` with that. Until then the batch is left alone, or abandoned.
        """
        try:
            self._owner.seal(self._draft)
            self._draft.txn.commit_in_background(report)
        except BaseException:
            self.abandon()
            raise

    def committed(self, error: BaseException | None) -> None:
        """The second half of `commit_in_background`; raises `error` if there was one."""
        if error is not None:
            self.abandon()
            raise error
        self._owner.adopt(self._draft)

    def abandon(self) -> None:
        """Drops the batch; the machine stays as it was before. Idempotent until committed."""
        self._owner.drop(self._draft)

    def _work(self, max_ops: int) -> bool:
        draft, results = self._draft, self.results
        for entry in islice(self._entries, len(results), None):
            if max_ops <= 0:
                return False
            max_ops -= 1
            result = self._open(entry) if self._job is None else self._resume(self._job)
            if result is None:
                # A job pauses when its slice is full: that was this turn's work.
                return False
            # A transaction of a hundred puts is a hundred operations, in one go.
            max_ops -= draft.sub
            draft.finish_entry(entry.index, entry.term)
            results.append(result)
        return True

    def _open(self, entry: Entry) -> Result | None:
        """Begins an entry; None if it paused."""
        draft = self._draft
        draft.term = entry.term
        if entry.kind == EntryKind.CONF_CHANGE:
            return apply_conf_change(draft, entry.data)
        command = decode(entry.data)
        if command is None:
            return Result(0, draft.revision)
        kind, request_id, payload = command
        draft.wanted = self._waiting is None or request_id in self._waiting
        if draft.state.alarms:
            refused = refusal(draft.state.alarms, kind)
            if refused is not None:
                return Result(request_id, draft.revision, error=refused)
        handler = HANDLERS.get(kind)
        if handler is None:
            raise CommandError(
                f"entry {entry.index} holds a command of kind {kind}, which this version does not"
                " know: run the version that wrote it"
            )
        try:
            outcome = handler(draft, payload)
        except EtcdError as error:
            detach(error)  # On most members nobody waits for it.
            return Result(request_id, draft.revision, error=error)
        if isinstance(outcome, bytes):
            return Result(request_id, draft.reading_revision, outcome)
        self._request_id = request_id
        self._job = outcome
        return self._resume(outcome)

    def _resume(self, job: Job[bytes]) -> Result | None:
        """Goes on with an entry; None if it paused again."""
        try:
            next(job)
        except StopIteration as stop:
            result = Result(self._request_id, self._draft.reading_revision, stop.value)
        except EtcdError as error:
            detach(error)
            result = Result(self._request_id, self._draft.revision, error=error)
        else:
            return None
        self._job = None
        assert result.error is None or not self._draft.sub, f"changes before {result.error!r}"
        return result
