"""Applying committed entries: one batch, one store transaction, in turns of bounded length.

Rules: entries are applied in log order without gaps; the outcome of each depends on replicated
state and the entry alone; a refusal (EtcdError) is decided before the entry's first write and
counts as applied; any other exception means that this node cannot go on: the transaction is
dropped and the exception propagates.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from google.protobuf.message import DecodeError

from kvstore.errors import EtcdError
from kvstore.machine.alarms import refusal
from kvstore.machine.command import CommandError, decode
from kvstore.machine.draft import Draft, Lease
from kvstore.machine.handlers import HANDLERS, apply_conf_change
from kvstore.machine.jobs import Job
from kvstore.machine.results import Change, Result
from raft.types import Entry, EntryKind

__all__ = ("ApplyBatch",)


class ApplyBatch:
    """Entries on their way into the store; `Machine.begin` makes one.

    `step` it until it is True, or `apply` until that is True and then `commit`.
    `results`, `changes`, `granted` and `revoked` are valid once it is committed.
    """

    __slots__ = (
        "_draft",
        "_entries",
        "_finish",
        "_job",
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
        finish: Callable[[bool], None],
    ) -> None:
        self._draft = draft
        self._entries = entries
        self._waiting = waiting
        self._finish = finish
        """Told once how the batch ended: commit (True) or not."""
        self._job: Job[bytes] | None = None
        self._request_id = 0
        self.results: list[Result] = []
        """One for each entry, in order."""
        self.changes: list[Change] = draft.changes
        """All events of the batch, ascending."""
        self.revoked: list[int] = draft.revoked
        """Leases that ended; to be looked at before `granted`."""
        self.granted: dict[int, Lease] = draft.granted
        """Leases that began and still are: the leader gives them deadlines."""

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
        try:
            self._finish(True)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Drops the batch; the machine stays as it was before. Idempotent until committed."""
        self._finish(False)

    def _work(self, max_ops: int) -> bool:
        entries, results = self._entries, self.results
        while len(results) < len(entries):
            if max_ops <= 0:
                return False
            max_ops -= 1
            entry = entries[len(results)]
            result = self._open(entry) if self._job is None else self._resume(self._job)
            if result is None:
                # A job pauses when its slice is full: that was this turn's work.
                return False
            self._draft.finish_entry(entry.index, entry.term)
            results.append(result._replace(revision=self._draft.revision))
        return True

    def _open(self, entry: Entry) -> Result | None:
        """Begins an entry; None if it paused."""
        draft = self._draft
        draft.term = entry.term
        if entry.kind == EntryKind.CONF_CHANGE:
            return apply_conf_change(draft, entry.data)
        command = decode(entry.data)
        if command is None:
            return _NO_OP
        kind, request_id, payload = command
        draft.wanted = self._waiting is None or request_id in self._waiting
        if draft.state.alarms:
            refused = refusal(draft.state.alarms, kind)
            if refused is not None:
                return Result(request_id, 0, error=refused)
        handler = HANDLERS.get(kind)
        if handler is None:
            raise CommandError(
                f"entry {entry.index} holds a command of kind {kind}, which this version does not"
                " know: run the version that wrote it"
            )
        try:
            outcome = handler(draft, payload)
        except EtcdError as error:
            return Result(request_id, 0, error=error)
        if isinstance(outcome, bytes):
            return Result(request_id, 0, outcome)
        self._request_id = request_id
        self._job = outcome
        return self._resume(outcome)

    def _resume(self, job: Job[bytes]) -> Result | None:
        """Goes on with an entry; None if it paused again."""
        try:
            next(job)
        except StopIteration as stop:
            result = Result(self._request_id, 0, stop.value)
        except EtcdError as error:
            result = Result(self._request_id, 0, error=error)
        else:
            return None
        self._job = None
        assert result.error is None or not self._draft.sub, f"changes before {result.error!r}"
        return result


_NO_OP = Result(0, 0)
