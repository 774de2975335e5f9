"""One verdict on everything that was recorded: both checkers, and every promise of every watch.

What must be so before a verdict means anything: the store was empty when the history began; each
client waited for one request at a time (one that it gave up may still happen); and the record goes
on to the end: either the event log is whole and something succeeded, or, where there is no log,
the last operation succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from tests.linear import model, revision_check, wgl
from tests.linear.finding import Finding, Verdict, table
from tests.linear.history import Compact, Event, Operation, Outcome, WatchRecord, Witness
from tests.linear.models import StoreModel
from tests.linear.settle import settle
from tests.linear.watch_check import EventLog, faults

__all__ = ("Judgement", "judge")

_SHOWN_MAX = 10


@dataclass(slots=True)
class Judgement:
    """What was wrong, as sentences (none if all is well), and what was looked at."""

    problems: list[str] = field(default_factory=list)
    operations: int = 0
    unknown: int = 0
    watches: int = 0
    events: int = 0
    undecided: bool = False
    """The search was given up at its bound; the revision check alone has judged."""

    @property
    def legal(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        shown = self.problems[:_SHOWN_MAX]
        more = len(self.problems) - len(shown)
        return "\n".join([*shown, f"… and {more} more"] if more > 0 else shown) or "all is well"

    def demand(self) -> None:
        """Raises AssertionError with the counter-example if anything was wrong or undecided."""
        if not self.legal:
            raise AssertionError(str(self))
        assert not self.undecided, "the search was given up at its bound"


def judge(
    history: Sequence[Operation],
    watches: Sequence[WatchRecord] = (),
    witness: Witness | None = None,
    *,
    states_max: int = wgl.STATES_MAX,
) -> Judgement:
    """The verdict; `witness` is the store's whole event log.

    Without it unknown outcomes are left to the search, no lease with keys may have expired, and
    watches cannot be judged.
    """
    assert witness is not None or not watches, "watches are judged against the event log"
    judgement = Judgement(
        operations=len(history),
        unknown=sum(op.outcome is Outcome.UNKNOWN for op in history),
        watches=len(watches),
        events=sum(len(each.events) for record in watches for each in record.responses),
    )
    problems = judgement.problems
    problems += _unfit(history, witness)
    if problems:
        return judgement
    with revision_check.collector_paused():
        settled = list(history) if witness is None else settle(history, witness)
        by_revision, store = revision_check.judged(settled)
        by_search = wgl.check(StoreModel(), settled, states_max)
    judgement.undecided = by_search.verdict is Verdict.INCONCLUSIVE
    if by_revision.verdict is Verdict.ILLEGAL or (witness is not None and not by_revision.legal):
        problems.append(f"by revisions: {by_revision}")
    if by_search.verdict is Verdict.ILLEGAL:
        problems.append(f"by search: {by_search}")
    if _disagree(by_revision, by_search):
        problems.append("the two checkers disagree")
    if witness is not None:
        if store is not None:
            problems += islice(_log_differs(store, witness), _SHOWN_MAX + 1)
        log = EventLog(witness, _compactions(history))
        problems += islice(faults(watches, log), _SHOWN_MAX + 1)
    return judgement


def _compactions(history: Sequence[Operation]) -> list[tuple[int, int]]:
    """(time, revision) of each compaction that may have happened, from its call on."""
    return [
        (op.call, op.request.revision)
        for op in history
        if isinstance(op.request, Compact) and op.outcome is not Outcome.REFUSED
    ]


def _disagree(one: Finding, other: Finding) -> bool:
    decided = Verdict.INCONCLUSIVE not in (one.verdict, other.verdict)
    return decided and one.verdict is not other.verdict


def _log_differs(store: model.Store, witness: Witness) -> list[str]:
    """Where the log is not what the answered and settled writes make. Previous pairs in it are not
    looked at: a log need not hold them."""
    made = {revision: _bare(events) for revision, events in model.log_of(store)}
    logged = {revision: _bare(events) for revision, events in witness}
    return [
        f"revision {revision} is {logged.get(revision, 'nothing')} in the event log, "
        f"but the requests made {made.get(revision, 'nothing')}"
        for revision in sorted({*made, *logged})
        if made.get(revision) != logged.get(revision)
    ]


def _bare(events: Sequence[Event]) -> tuple[Event, ...]:
    return tuple(replace(event, prev=None) for event in events)


def _unfit(history: Sequence[Operation], witness: Witness | None) -> list[str]:
    """Why nothing can be said about this history."""
    expected = 2
    for revision, _ in witness or ():
        if revision != expected:
            return [f"the event log has revision {revision} where {expected} must follow"]
        expected += 1
    if not history:
        return ["nothing was recorded"]
    ordered = sorted(history, key=lambda op: op.call)
    busy: dict[int, Operation] = {}
    for op in ordered:
        before = busy.get(op.client)
        if before is not None and before.ret is not None and before.ret > op.call:
            return [f"a client had two requests in flight\n{table([before, op])}"]
        busy[op.client] = op
    if not any(op.outcome is Outcome.OK for op in history):
        return [f"nothing succeeded\n{table(ordered[:3])}"]
    if witness is None and ordered[-1].outcome is not Outcome.OK:
        return [f"the last operation did not succeed\n{table(ordered[-1:])}"]
    return []
